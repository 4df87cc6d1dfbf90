"""Pairs for training: queries about documents, and the passages that answer them. Standard library only.

units, sentences, passages      pure: a document as headings, signatures and sentences; those as passages
corpus                          the documents of the corpus, cut into passages one at a time
lexicon, patterns, rules        English: words, shapes of sentences, and the questions that these answer
phrases, reading                which phrases passages share; a passage as the other kinds of questions see it
kinds                           questions that need no pattern: title, excerpt, terms, topic
extractive                      provider without a language model: which of the rules' questions are the best
turns                           the same with several kinds of questions, which take turns
prompts                         what a language model is told, and what is believed of its answer
openai_client, openai_provider  provider with a language model: one call, and all calls of the corpus
provider                        what both providers hand to the stage
stage                           the stage's work, from corpus to pairs
"""
