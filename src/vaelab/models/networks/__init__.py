"""Encoder and decoder networks, one file per architecture family.

An encoder is built as ``Encoder(image_shape=(C, H, W), ...)`` and maps images (B, C, H, W) to features
(B, ``out_features``). A decoder is built as ``Decoder(in_features=D, image_shape=(C, H, W), ...)`` and maps latents
(B, D) to outputs (B, C, H, W). Both work for every image size and every number of features. The posterior interprets
the encoder's outputs, and the likelihood interprets the decoder's outputs.
"""
