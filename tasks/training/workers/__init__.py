"""A training shared by processes: launchers, the order, and what they tell the run."""
