"""A `remote::passthrough` provider for Llama Stack that is exact, fast and safe."""
