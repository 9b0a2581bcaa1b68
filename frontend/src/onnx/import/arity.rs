//! How many operands the standard operators take.
//!
//! A node with more would lose some of them without a word, so it is refused.

/// The most operands of an operator of the standard domain in a version of the operator set; `None` for operators that
/// take any number, that are newer than this table, or that belong to another domain.
pub(super) fn most_operands(domain: &str, operator: &str, opset: i64) -> Option<usize> {
    if !domain.is_empty() {
        return None;
    }
    Some(match operator {
        "Constant" | "RandomNormal" | "RandomUniform" | "SequenceEmpty" => 0,
        "Abs"
        | "Acos"
        | "Acosh"
        | "ArgMax"
        | "ArgMin"
        | "Asin"
        | "Asinh"
        | "Atan"
        | "Atanh"
        | "AveragePool"
        | "Bernoulli"
        | "BitwiseNot"
        | "BlackmanWindow"
        | "Cast"
        | "Ceil"
        | "Celu"
        | "ConcatFromSequence"
        | "ConstantOfShape"
        | "Cos"
        | "Cosh"
        | "DepthToSpace"
        | "Det"
        | "DynamicQuantizeLinear"
        | "Elu"
        | "Erf"
        | "Exp"
        | "EyeLike"
        | "Flatten"
        | "Floor"
        | "Gelu"
        | "GlobalAveragePool"
        | "GlobalLpPool"
        | "GlobalMaxPool"
        | "HammingWindow"
        | "HannWindow"
        | "HardSigmoid"
        | "HardSwish"
        | "Hardmax"
        | "Identity"
        | "If"
        | "ImageDecoder"
        | "IsInf"
        | "IsNaN"
        | "LRN"
        | "LeakyRelu"
        | "Log"
        | "LogSoftmax"
        | "LpNormalization"
        | "LpPool"
        | "MaxPool"
        | "MeanVarianceNormalization"
        | "Mish"
        | "Multinomial"
        | "Neg"
        | "NonZero"
        | "Not"
        | "Optional"
        | "OptionalGetElement"
        | "OptionalHasElement"
        | "RandomNormalLike"
        | "RandomUniformLike"
        | "Reciprocal"
        | "RegexFullMatch"
        | "Relu"
        | "Round"
        | "Selu"
        | "SequenceLength"
        | "Shape"
        | "Shrink"
        | "Sigmoid"
        | "Sign"
        | "Sin"
        | "Sinh"
        | "Size"
        | "Softmax"
        | "Softplus"
        | "Softsign"
        | "SpaceToDepth"
        | "Sqrt"
        | "StringNormalizer"
        | "StringSplit"
        | "Tan"
        | "Tanh"
        | "TfIdfVectorizer"
        | "ThresholdedRelu"
        | "Transpose"
        | "Unique" => 1,
        "Add" | "AffineGrid" | "And" | "BitShift" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor"
        | "CastLike" | "CenterCropPad" | "Compress" | "CumSum" | "Div" | "Equal" | "Expand" | "Gather"
        | "GatherElements" | "GatherND" | "Greater" | "GreaterOrEqual" | "GridSample" | "Less"
        | "LessOrEqual" | "MatMul" | "MaxRoiPool" | "Mod" | "Mul" | "Or" | "PRelu" | "Pow"
        | "ReverseSequence" | "SequenceAt" | "SequenceErase" | "SplitToSequence" | "StringConcat" | "Sub"
        | "Trilu" | "Xor" => 2,
        "Col2Im"
        | "Conv"
        | "ConvTranspose"
        | "DequantizeLinear"
        | "Gemm"
        | "GroupNormalization"
        | "InstanceNormalization"
        | "LayerNormalization"
        | "MaxUnpool"
        | "NegativeLogLikelihoodLoss"
        | "OneHot"
        | "QuantizeLinear"
        | "Range"
        | "RoiAlign"
        | "Scatter"
        | "ScatterElements"
        | "ScatterND"
        | "SequenceInsert"
        | "SoftmaxCrossEntropyLoss"
        | "Where" => 3,
        "ConvInteger" | "MatMulInteger" | "STFT" => 4,
        "BatchNormalization" | "DeformConv" | "MelWeightMatrix" | "NonMaxSuppression" => 5,
        "GRU" | "RNN" => 6,
        "LSTM" | "QLinearMatMul" => 8,
        "QLinearConv" => 9,
        "Reshape" => grown(opset, &[(1, 1), (5, 2)]),
        "Upsample" => grown(opset, &[(1, 1), (9, 2)]),
        "TopK" => grown(opset, &[(1, 1), (10, 2)]),
        "Slice" => grown(opset, &[(1, 1), (10, 5)]),
        "Clip" => grown(opset, &[(1, 1), (11, 3)]),
        "Pad" => grown(opset, &[(1, 1), (11, 3), (18, 4)]),
        "Dropout" => grown(opset, &[(1, 1), (12, 3)]),
        "ReduceSum" | "Squeeze" | "Unsqueeze" => grown(opset, &[(1, 1), (13, 2)]),
        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax" | "ReduceMean"
        | "ReduceMin" | "ReduceProd" | "ReduceSumSquare" => grown(opset, &[(1, 1), (18, 2)]),
        "Tile" => grown(opset, &[(1, 3), (6, 2)]),
        "Resize" => grown(opset, &[(10, 2), (11, 4)]),
        "DFT" => grown(opset, &[(17, 2), (20, 3)]),
        _ => return None,
    })
}

/// The entry of the newest version that is not newer than `opset`.
fn grown(opset: i64, versions: &[(i64, usize)]) -> usize {
    versions.iter().rev().find(|(first, _)| *first <= opset).map_or(0, |(_, most)| *most)
}

#[cfg(test)]
mod tests {
    use super::most_operands;

    #[test]
    fn operands_grow_with_versions() {
        assert_eq!(most_operands("", "Relu", 17), Some(1));
        assert_eq!(most_operands("", "Clip", 7), Some(1));
        assert_eq!(most_operands("", "Clip", 11), Some(3));
        assert_eq!(most_operands("", "Concat", 17), None);
        assert_eq!(most_operands("com.microsoft", "Relu", 1), None);
    }
}
