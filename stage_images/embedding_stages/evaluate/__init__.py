"""Retrieval metrics of the base model and the fine-tuned one on the same BEIR set.

evaluation_set    the BEIR folder (see formats/beir.py) in one order
search, metrics   vectors to rankings to numbers; verify uses the same two, so its numbers compare
bootstrap         how sure the uplift is
report            report.json
stage             the stage's work; the only module that needs torch
"""
