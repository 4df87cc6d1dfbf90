"""The operator with thousands of resources, on a real control plane with simulated Pods; and its peers.

What runs for real: etcd, kube-apiserver, the operator (or a peer) as a process of its own with the rights of its chart.
What is played: Job controller, Deployment controller, kubelet and model server (simulator.py). See docs/benchmarks.md.
"""
