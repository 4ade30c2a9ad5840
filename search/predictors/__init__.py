"""Predictors, which map mixtures to scores, and the stacking of several predictors into one."""
