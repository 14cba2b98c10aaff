"""The commands that run the service and talk to it; `pairforge` shows them beside the library's own."""
