"""The report for people: pages, cards and plots."""
