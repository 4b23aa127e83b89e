"""Language models on other servers, spoken to through their vendors' SDKs, which are imported on first use."""
