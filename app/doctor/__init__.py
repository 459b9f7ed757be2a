"""What ``whisperd doctor`` looks at: machine, backends, models, server; each finding with its remedy."""
