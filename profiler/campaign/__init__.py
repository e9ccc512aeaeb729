"""Scenarios × targets × repeats, run in parallel, each failure contained, finished runs kept.

A campaign's directory:

    campaign.json      the plan as last run
    runs/NAME/         one Recording with its analysis and report
    outcomes/NAME.json how the run ended; written last
    logs/NAME.log      what the run printed
    results.json       all outcomes
    index.html         all runs on one page
"""
