"""How often the verdict is right, by the kind of evidence: every scenario on every kernel, held against its truth file.

    python -m tests.bench.accuracy run --out DIR      records, once, with samples and an execution log
    ... run --out OTHER --evidence man,log,source,graph,samples,probes
                                                      runs the ladder with these rungs, as `whyerrno run` does
    python -m tests.bench.accuracy table DIR...       analyzes, judges, and prints the tables

Truth comes from reading the kernel's source (loadgen/truth), never from the tool. In DIR, besides the campaign's
own files:

    analyses/EVIDENCE/...   what was concluded from each recording; the recordings themselves are left as they are
    accuracy.json           every verdict, with what was claimed and what is true
    reliability.png         stated confidence against observed rightness
"""
