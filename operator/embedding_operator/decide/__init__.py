"""The decision: from a spec, a status and what was observed to actions and the next status. Pure.

Start at `plan.py`. Each other module answers one question:

    jobs         how does one Job stage come one step further?
    outcome      how did an attempt end, and will there be another?
    waiting      why does a pod not start?
    serving      which Deployment does this revision need?
    rollout      how far has that Deployment come?
    verdict      does the endpoint measure what was evaluated?
    traffic      which revision do clients talk to?
    rendezvous   where do the pods of a multi-node Job find each other?
    summary      which conditions, phase and figures follow from all that?
"""
