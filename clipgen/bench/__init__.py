"""Measuring: how fast clipgen draws (`python -m clipgen.bench.first_picture`)."""
