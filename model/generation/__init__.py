"""From an adapter to the accepted pairs of a dataset."""
