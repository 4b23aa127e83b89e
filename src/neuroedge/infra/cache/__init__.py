"""The cache: memory, then Valkey, then disk; what is found below moves up. Bound to one organisation each."""
