"""Records of adapters and jobs in Redis: the truth about what was asked for, how far it is and what came of it."""
