"""Suites: methods by data sets by recommenders by seeds, from one file, in one store, in one table a data set."""
