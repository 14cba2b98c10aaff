"""Commands that run the service and talk to it, listed by `pairforge` beside the library's own."""
