"""What the tests need that is no test: mock vendors, the real server, raw HTTP."""
