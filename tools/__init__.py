"""Tools for developers: `make demo`, `make bench`, `make soak`, `make clients`."""
