"""gRPC: AIVO Brain Service's methods (brain.proto) over the same services as HTTP."""
