"""Audits: whether held-out data reach what is learned, which paper variants a recipe uses, what files of data hold."""
