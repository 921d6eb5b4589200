"""Seeded campaigns: many random cases within a time, each of which a seed repeats.

`python -m tests.campaigns --seconds 300` shares the time among all of them; `--only NAME --seed N --cases 1` repeats
one case. A campaign is a module with `NAME` and `case(seed)`, which raises where the product's promise does not hold;
most take a size too (`--size`: kills, corruptions, requests, races, inputs, seconds), so that one case may be as long as a night.
What the long ones gave, and what campaigns and tests have found, is in RESULTS.md beside this file.
"""
