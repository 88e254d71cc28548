"""Loss functions as pure functions of tensors (SDM, InfoNCE, sigmoid, triplet, ID, IRR), and the weighted objective made of them."""
