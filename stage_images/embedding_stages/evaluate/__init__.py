"""Retrieval metrics of the base model and the fine-tuned one on the same BEIR set.

evaluation_set    the BEIR folder (see formats/beir.py) in one order
search, metrics   vectors to rankings to numbers; verify uses the same two, so its numbers compare
dimensions        the tuned model's vectors cut to each size that it lists
bootstrap         how sure the uplift is
comparison        how far one model lies above another, for the gates
report            report.json
stage             the stage's work; the only module that needs torch
"""
