"""Stream tokens out of clustered shards by live mixture weights.

The reader owns the contract, so the formats live here: `Manifest` and MDS shards on disk,
`Mixture` and `WeightsLog` for the weights, `LoaderState` for resuming. `MixtureLoader` joins
them. Names load on first use: reading a manifest does not import torch.
"""
