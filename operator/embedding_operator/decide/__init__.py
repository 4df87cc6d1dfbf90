"""The decision: from a spec, a status and what was observed to actions and the next status. Pure.

Start at `plan.py`; `decision` holds what goes in and what comes out. Each other module answers one question.

Before a stage runs:

    settle       which image and which code version does it run with?
    preflight    would the API server refuse what its stages are going to create?
    image_check  can the images of later stages be pulled?
    workspace    is the stages' volume there, and as large as the manifest asks for?

A stage that is a Job:

    jobs         how does it come one step further? A chain of checks, over the state in `step`:
    start          what goes first, what is created, and what does the Job wait for?
    run            how far has it come, and for how long does it run?
    retry          what follows from its end?
    outcome      how did an attempt end?
    readable     can what its result tells be read?
    attempts     will there be another one, when, and with what?
    limits       has the run used what it may?
    usage        what has it used?
    bounds       does what runs keep to its limits, however far the pass goes?
    waiting      why does a pod not start?
    words          and how often is that told in words that change?
    pulling        what is wrong with its image?
    uncreated      why is there no pod at all?
    queue        what does a Job in Kueue's queue wait for?
    lost         what was asked to end and never does?
    rendezvous   where do the pods of a multi-node Job find each other?
    results      what ended while no stage asks after it?
    retention    when do Jobs that ended go?

From an exported model to clients:

    gates        is the tuned model good enough?
    serving      which Deployment does this revision need?
    rollout      how far has that Deployment come?
    verdict      does the endpoint measure what was evaluated?
    handover     may clients be moved to it?
    traffic      which revision do clients talk to?
    retire       when does what they have left go?
    contract     what must they know of it, and does it answer the same still?
    records      how can a revision be served again?
    scale        how many pods has the server?
    schedule     when are the sources looked at again, and what follows from a change?

In every pass:

    drift        is an object what was applied, and when is it restored?
    refusals     what did the API server refuse in this pass?
    stopped      what is said where the pass goes no further?
    summary      which conditions and which phase follow from all that?
    phase          in one word?
    figures        what was measured?
    warnings       what do finished stages warn of?
    written      how are conditions written?
"""
