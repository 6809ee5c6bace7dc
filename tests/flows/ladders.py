"""The ladders that the tests run."""

# Three stages of a small vision transformer on the digits: about three seconds of training in all.
TINY = """
name: tiny
workload: image-classification
data: {source: digits, valid_fraction: 0.2, test_fraction: 0.1}
evaluation: {examples: 200}
defaults:
  objective: {alpha: 0.7, temperature: 2.0}
  training: {steps: 20, batch_size: 32, learning_rate: 3e-3, precision: fp32, validate_every: 10, checkpoint_every: 5}
teacher:
  source: train
  shape: {family: vit, hidden_size: 32, layers: 3, heads: 4, feed_forward: 64}
  training: {steps: 60, batch_size: 32, learning_rate: 3e-3, precision: fp32, validate_every: 20, checkpoint_every: 20}
stages:
  - name: one
    student: {shape: {family: vit, hidden_size: 32, layers: 2, heads: 4, feed_forward: 64}, initialisation: layers}
  - name: two
    student: {shape: {family: vit, hidden_size: 24, layers: 2, heads: 4, feed_forward: 48}}
    training: {steps: 120}
  - name: three
    student: {shape: {family: vit, hidden_size: 16, layers: 2, heads: 2, feed_forward: 32}}
"""

# One stage, too short for its gate, which the test writes.
GATED = (
    TINY.partition("stages:")[0].replace("name: tiny", "name: gated")
    + """stages:
  - name: one
    student: {shape: {family: vit, hidden_size: 12, layers: 1, heads: 2, feed_forward: 24}}
    training: {steps: 5}
    gate: {min_parent_retention: 0.99, GATE}
"""
)
