"""AnomalyDiffusion: fills a given mask on a normal photograph with a defect that was learned as words."""
