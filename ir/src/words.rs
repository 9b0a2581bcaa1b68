//! Enumerated attributes of operators.

use crate::word_attribute;

word_attribute! {
    /// The associative operator of a reduction, scan or scatter.
    ReduceKind {
        /// Addition from 0.
        Sum "sum",
        /// Multiplication from 1.
        Prod "prod",
        /// Maximum from the smallest value.
        Max "max",
        /// Minimum from the largest value.
        Min "min",
    }
}

word_attribute! {
    /// Where channels sit in an image-like tensor.
    Layout {
        /// Batch, channels, then spatial dimensions; filters are `[out, in/groups, spatial...]`.
        ChannelsFirst "channels_first",
        /// Batch, spatial dimensions, then channels; filters are `[spatial..., in/groups, out]`.
        ChannelsLast "channels_last",
    }
}

word_attribute! {
    /// What a sliding window computes.
    WindowKind {
        /// Largest element; padding never wins.
        Max "max",
        /// Sum of elements; padding adds nothing.
        Sum "sum",
        /// Mean over the elements that are not padding.
        MeanValid "mean_valid",
        /// Mean over all positions inside the declared padding, padding counted as zero.
        MeanPadded "mean_padded",
    }
}

word_attribute! {
    /// What lies outside a padded tensor.
    PadKind {
        /// A given value.
        Constant "constant",
        /// Mirror without repeating the edge.
        Reflect "reflect",
        /// The nearest edge element.
        Edge "edge",
        /// Periodic continuation.
        Wrap "wrap",
    }
}

word_attribute! {
    /// How a scatter combines an update with what is there.
    ScatterKind {
        /// The update replaces.
        Replace "replace",
        /// Sum.
        Add "add",
        /// Product.
        Mul "mul",
        /// Maximum.
        Max "max",
        /// Minimum.
        Min "min",
    }
}

word_attribute! {
    /// Interpolation of a resize or grid sample.
    ResizeKind {
        /// The nearest sample.
        Nearest "nearest",
        /// Between two samples an axis.
        Linear "linear",
        /// Over four samples an axis.
        Cubic "cubic",
    }
}

word_attribute! {
    /// How an output coordinate maps to an input coordinate (ONNX Resize, `coordinate_transformation_mode`).
    CoordinateKind {
        /// `(x + 0.5) / scale - 0.5`.
        HalfPixel "half_pixel",
        /// As `half_pixel`, corrected so that the centre stays where it is.
        HalfPixelSymmetric "half_pixel_symmetric",
        /// As `half_pixel`, 0 where the output has one element.
        PytorchHalfPixel "pytorch_half_pixel",
        /// `x * (n_in - 1) / (n_out - 1)`.
        AlignCorners "align_corners",
        /// `x / scale`.
        Asymmetric "asymmetric",
        /// Over a region of interest given by the attributes.
        TfCropAndResize "tf_crop_and_resize",
    }
}

word_attribute! {
    /// How `nearest` rounds (ONNX Resize, `nearest_mode`).
    NearestKind {
        /// Half down.
        RoundPreferFloor "round_prefer_floor",
        /// Half up.
        RoundPreferCeil "round_prefer_ceil",
        /// Down.
        Floor "floor",
        /// Up.
        Ceil "ceil",
    }
}

word_attribute! {
    /// The cell of a recurrent operator.
    CellKind {
        /// `h = f(x W + h R + b)`.
        Rnn "rnn",
        /// Gated recurrent unit, gates in the order z, r, h.
        Gru "gru",
        /// Long short-term memory, gates in the order i, o, f, c.
        Lstm "lstm",
    }
}

word_attribute! {
    /// The order in which a recurrent operator visits time steps.
    Direction {
        /// First to last.
        Forward "forward",
        /// Last to first.
        Reverse "reverse",
        /// Both, as two stacked directions.
        Bidirectional "bidirectional",
    }
}

word_attribute! {
    /// A distribution to draw from.
    RandomKind {
        /// Uniform on [low, high).
        Uniform "uniform",
        /// Normal with mean and deviation.
        Normal "normal",
    }
}
