"""Modules shared by the API, the workers and the library; none imports FastAPI or torch."""
