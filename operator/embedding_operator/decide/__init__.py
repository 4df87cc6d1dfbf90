"""The decision: from a spec, a status and what was observed to actions and the next status. Pure.

Start at `plan.py`. Each other module answers one question:

    jobs         how does one Job stage come one step further? A chain of checks, over the state in `step`:
    start          what goes first, what is created, and what does the Job wait for?
    run            how far has it come, and for how long does it run?
    retry          what follows from its end?
    outcome      how did an attempt end, and will there be another?
    waiting      why does a pod not start?
    lost         is a pod on a node that is lost?
    refusals     what did the API server refuse in this pass?
    serving      which Deployment does this revision need?
    drift        is that Deployment what was applied, and when is it restored?
    rollout      how far has that Deployment come?
    verdict      does the endpoint measure what was evaluated?
    traffic      which revision do clients talk to?
    schedule     when are the sources looked at again, and what follows from a change?
    rendezvous   where do the pods of a multi-node Job find each other?
    summary      which conditions and which phase follow from all that?
    figures      what was measured?
    warnings     what do finished stages warn of?
"""
