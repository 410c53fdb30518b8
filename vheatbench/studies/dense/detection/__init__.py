"""Mask R-CNN over any timm backbone with maps at strides 4, 8, 16 and 32."""
