"""The dashboards in Python; `python -m deploy.grafana.boards` makes the JSON that Grafana reads."""
