"""What crosses stages, on disk: one module a format, with its record, its writer, its reader and its checks.

characters      which characters of a text stay, and what words are compared in
lines           JSON lines, numbered, so that every fault names file and line
documents       Artefact.CORPUS: inputs writes it, sdg reads it
pairs           Artefact.PAIRS: sdg writes it, prep reads it; when two queries are the same one
training_set    Artefact.TRAINING_SET: prep writes it, finetune reads it
beir            Artefact.EVALUATION_SET and Artefact.LABELLED_SET: a BEIR folder
set_documents   beside it in Artefact.EVALUATION_SET: the documents that its passages were cut from; prep reads it again

Needs the standard library alone, and knows no stage. A format with one reader names its reason itself; BEIR's faults
are FormatErrors, which each stage turns into its own reason, with the manifest's field.
"""
