//! Attributes that the operators of the ONNX domains define, in all versions that are imported.
//!
//! An attribute that is not listed would change the meaning of a node in a way that its lowering does not know, so the
//! node is refused.

/// The attributes of an operator; `None` for operators that are not listed, whose attributes are not checked.
pub(super) fn defined(domain: &str, operator: &str) -> Option<&'static [&'static str]> {
    Some(match (domain, operator) {
        ("", "Abs")
        | ("", "Ceil")
        | ("", "Exp")
        | ("", "Floor")
        | ("", "Log")
        | ("", "Max")
        | ("", "Mean")
        | ("", "Min")
        | ("", "Neg")
        | ("", "PRelu")
        | ("", "Reciprocal")
        | ("", "Relu")
        | ("", "Sigmoid")
        | ("", "Sqrt")
        | ("", "Sum")
        | ("", "Tanh") => &["consumed_inputs"],
        ("", "Add") | ("", "Div") | ("", "Mul") | ("", "Sub") => &["axis", "broadcast", "consumed_inputs"],
        ("", "AffineGrid") => &["align_corners"],
        ("", "And")
        | ("", "Equal")
        | ("", "Greater")
        | ("", "Less")
        | ("", "Or")
        | ("", "Pow")
        | ("", "Xor") => &["axis", "broadcast"],
        ("", "ArgMax") | ("", "ArgMin") => &["axis", "keepdims", "select_last_index"],
        ("", "Attention") => &[
            "is_causal",
            "kv_num_heads",
            "left_window_size",
            "q_num_heads",
            "qk_matmul_output_mode",
            "right_window_size",
            "scale",
            "softcap",
            "softmax_precision",
        ],
        ("", "AveragePool") => {
            &["auto_pad", "ceil_mode", "count_include_pad", "dilations", "kernel_shape", "pads", "strides"]
        }
        ("", "BatchNormalization") => {
            &["consumed_inputs", "epsilon", "is_test", "momentum", "spatial", "training_mode"]
        }
        ("", "Bernoulli") => &["dtype", "seed"],
        ("", "BitCast") => &["to"],
        ("", "BitShift") => &["direction"],
        ("", "BlackmanWindow") | ("", "HammingWindow") | ("", "HannWindow") => {
            &["output_datatype", "periodic"]
        }
        ("", "Cast") => &["round_mode", "saturate", "to"],
        ("", "CastLike") => &["round_mode", "saturate"],
        ("", "CausalConvWithState") => &["activation"],
        ("", "Celu") | ("", "SwiGLU") | ("", "Swish") | ("", "ThresholdedRelu") => &["alpha"],
        ("", "CenterCropPad") | ("", "MeanVarianceNormalization") | ("", "Squeeze") | ("", "Unsqueeze") => {
            &["axes"]
        }
        ("", "Clip") => &["consumed_inputs", "max", "min"],
        ("", "Col2Im") => &["dilations", "pads", "strides"],
        ("", "Compress")
        | ("", "Concat")
        | ("", "Flatten")
        | ("", "Gather")
        | ("", "GatherElements")
        | ("", "Hardmax")
        | ("", "LogSoftmax")
        | ("", "OneHot")
        | ("", "Scatter")
        | ("", "Softmax") => &["axis"],
        ("", "ConcatFromSequence") => &["axis", "new_axis"],
        ("", "Constant") => &[
            "sparse_value",
            "value",
            "value_float",
            "value_floats",
            "value_int",
            "value_ints",
            "value_string",
            "value_strings",
        ],
        ("", "ConstantOfShape") => &["value"],
        ("", "Conv") | ("", "ConvInteger") | ("", "QLinearConv") => {
            &["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"]
        }
        ("", "ConvTranspose") => &[
            "auto_pad",
            "dilations",
            "group",
            "kernel_shape",
            "output_padding",
            "output_shape",
            "pads",
            "strides",
        ],
        ("", "CumProd") | ("", "CumSum") => &["exclusive", "reverse"],
        ("", "DFT") => &["axis", "inverse", "onesided"],
        ("", "DeformConv") => &["dilations", "group", "kernel_shape", "offset_group", "pads", "strides"],
        ("", "DepthToSpace") | ("", "SpaceToDepth") => &["blocksize", "mode"],
        ("", "DequantizeLinear") => &["axis", "block_size", "output_dtype"],
        ("", "Dropout") => &["consumed_inputs", "is_test", "ratio", "seed"],
        ("", "Einsum") => &["equation"],
        ("", "Elu") | ("", "LeakyRelu") => &["alpha", "consumed_inputs"],
        ("", "EyeLike") => &["dtype", "k"],
        ("", "GRU") => &[
            "activation_alpha",
            "activation_beta",
            "activations",
            "clip",
            "direction",
            "hidden_size",
            "layout",
            "linear_before_reset",
            "output_sequence",
        ],
        ("", "GatherND") => &["batch_dims"],
        ("", "Gelu") => &["approximate"],
        ("", "Gemm") => &["alpha", "beta", "broadcast", "transA", "transB"],
        ("", "GlobalLpPool") => &["p"],
        ("", "GridSample") => &["align_corners", "mode", "padding_mode"],
        ("", "GroupNormalization") => &["epsilon", "num_groups", "stash_type"],
        ("", "HardSigmoid") => &["alpha", "beta", "consumed_inputs"],
        ("", "If") => &["else_branch", "then_branch"],
        ("", "InstanceNormalization") => &["consumed_inputs", "epsilon"],
        ("", "IsInf") => &["detect_negative", "detect_positive"],
        ("", "LRN") => &["alpha", "beta", "bias", "size"],
        ("", "LSTM") => &[
            "activation_alpha",
            "activation_beta",
            "activations",
            "clip",
            "direction",
            "hidden_size",
            "input_forget",
            "layout",
            "output_sequence",
        ],
        ("", "LayerNormalization") | ("", "RMSNormalization") => &["axis", "epsilon", "stash_type"],
        ("", "Loop") | ("", "SequenceMap") => &["body"],
        ("", "LpNormalization") => &["axis", "p"],
        ("", "LpPool") => &["auto_pad", "ceil_mode", "dilations", "kernel_shape", "p", "pads", "strides"],
        ("", "MaxPool") => {
            &["auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "storage_order", "strides"]
        }
        ("", "MaxUnpool") => &["kernel_shape", "pads", "strides"],
        ("", "MelWeightMatrix") => &["output_datatype"],
        ("", "Mod") => &["fmod"],
        ("", "NegativeLogLikelihoodLoss") | ("", "SoftmaxCrossEntropyLoss") => &["ignore_index", "reduction"],
        ("", "NonMaxSuppression") => &["center_point_box"],
        ("", "Optional") => &["type"],
        ("", "Pad") => &["mode", "paddings", "pads", "value"],
        ("", "QuantizeLinear") => &["axis", "block_size", "output_dtype", "precision", "saturate"],
        ("", "RNN") => &[
            "activation_alpha",
            "activation_beta",
            "activations",
            "clip",
            "direction",
            "hidden_size",
            "layout",
            "output_sequence",
        ],
        ("", "RandomNormal") => &["dtype", "mean", "scale", "seed", "shape"],
        ("", "RandomNormalLike") => &["dtype", "mean", "scale", "seed"],
        ("", "RandomUniform") => &["dtype", "high", "low", "seed", "shape"],
        ("", "RandomUniformLike") => &["dtype", "high", "low", "seed"],
        ("", "Range") => &["stash_type"],
        ("", "ReduceL1")
        | ("", "ReduceL2")
        | ("", "ReduceLogSum")
        | ("", "ReduceLogSumExp")
        | ("", "ReduceMax")
        | ("", "ReduceMean")
        | ("", "ReduceMin")
        | ("", "ReduceProd")
        | ("", "ReduceSum")
        | ("", "ReduceSumSquare") => &["axes", "keepdims", "noop_with_empty_axes"],
        ("", "RegexFullMatch") => &["pattern"],
        ("", "Reshape") => &["allowzero", "consumed_inputs", "shape"],
        ("", "Resize") => &[
            "antialias",
            "axes",
            "coordinate_transformation_mode",
            "cubic_coeff_a",
            "exclude_outside",
            "extrapolation_value",
            "keep_aspect_ratio_policy",
            "mode",
            "nearest_mode",
        ],
        ("", "ReverseSequence") => &["batch_axis", "time_axis"],
        ("", "RoiAlign") => &[
            "coordinate_transformation_mode",
            "mode",
            "output_height",
            "output_width",
            "sampling_ratio",
            "spatial_scale",
        ],
        ("", "RotaryEmbedding") => &["interleaved", "num_heads", "rotary_embedding_dim"],
        ("", "STFT") => &["onesided"],
        ("", "Scan") => &[
            "body",
            "directions",
            "directions",
            "num_scan_inputs",
            "scan_input_axes",
            "scan_input_directions",
            "scan_output_axes",
            "scan_output_directions",
        ],
        ("", "ScatterElements") => &["axis", "reduction"],
        ("", "ScatterND") => &["reduction"],
        ("", "Selu") => &["alpha", "consumed_inputs", "gamma"],
        ("", "SequenceEmpty") => &["dtype"],
        ("", "Shape") => &["end", "start"],
        ("", "Shrink") => &["bias", "lambd"],
        ("", "Slice") => &["axes", "ends", "starts"],
        ("", "Split") => &["axis", "num_outputs", "split"],
        ("", "SplitToSequence") => &["axis", "keepdims"],
        ("", "StringNormalizer") => &["case_change_action", "is_case_sensitive", "locale", "stopwords"],
        ("", "StringSplit") => &["delimiter", "maxsplit"],
        ("", "TensorScatter") => &["axis", "mode"],
        ("", "TfIdfVectorizer") => &[
            "max_gram_length",
            "max_skip_count",
            "min_gram_length",
            "mode",
            "ngram_counts",
            "ngram_indexes",
            "pool_int64s",
            "pool_strings",
            "weights",
        ],
        ("", "TopK") => &["axis", "k", "largest", "sorted"],
        ("", "Transpose") => &["perm"],
        ("", "Trilu") => &["upper"],
        ("", "Unique") => &["axis", "sorted"],
        ("", "Upsample") => &["height_scale", "mode", "scales", "width_scale"],
        ("ai.onnx.ml", "Binarizer") => &["threshold"],
        ("ai.onnx.ml", "LabelEncoder") => &[
            "classes_strings",
            "default_float",
            "default_int64",
            "default_string",
            "default_tensor",
            "keys_floats",
            "keys_int64s",
            "keys_strings",
            "keys_tensor",
            "values_floats",
            "values_int64s",
            "values_strings",
            "values_tensor",
        ],
        ("ai.onnx.ml", "TreeEnsemble") => &[
            "aggregate_function",
            "leaf_targetids",
            "leaf_weights",
            "membership_values",
            "n_targets",
            "nodes_falseleafs",
            "nodes_falsenodeids",
            "nodes_featureids",
            "nodes_hitrates",
            "nodes_missing_value_tracks_true",
            "nodes_modes",
            "nodes_splits",
            "nodes_trueleafs",
            "nodes_truenodeids",
            "post_transform",
            "tree_roots",
        ],
        ("ai.onnx.preview.training", "Adagrad") => &["decay_factor", "epsilon", "norm_coefficient"],
        ("ai.onnx.preview.training", "Adam") => {
            &["alpha", "beta", "epsilon", "norm_coefficient", "norm_coefficient_post"]
        }
        ("ai.onnx.preview.training", "Momentum") => &["alpha", "beta", "mode", "norm_coefficient"],
        ("", "Acos")
        | ("", "Acosh")
        | ("", "Asin")
        | ("", "Asinh")
        | ("", "Atan")
        | ("", "Atanh")
        | ("", "BitwiseAnd")
        | ("", "BitwiseNot")
        | ("", "BitwiseOr")
        | ("", "BitwiseXor")
        | ("", "Cos")
        | ("", "Cosh")
        | ("", "Det")
        | ("", "DynamicQuantizeLinear")
        | ("", "Erf")
        | ("", "Expand")
        | ("", "GlobalAveragePool")
        | ("", "GlobalMaxPool")
        | ("", "GreaterOrEqual")
        | ("", "HardSwish")
        | ("", "Identity")
        | ("", "IsNaN")
        | ("", "LessOrEqual")
        | ("", "MatMul")
        | ("", "MatMulInteger")
        | ("", "Mish")
        | ("", "NonZero")
        | ("", "Not")
        | ("", "OptionalGetElement")
        | ("", "OptionalHasElement")
        | ("", "QLinearMatMul")
        | ("", "Round")
        | ("", "SequenceAt")
        | ("", "SequenceConstruct")
        | ("", "SequenceErase")
        | ("", "SequenceInsert")
        | ("", "SequenceLength")
        | ("", "Sign")
        | ("", "Sin")
        | ("", "Sinh")
        | ("", "Size")
        | ("", "Softplus")
        | ("", "Softsign")
        | ("", "StringConcat")
        | ("", "Tan")
        | ("", "Tile")
        | ("", "Where")
        | ("ai.onnx.ml", "ArrayFeatureExtractor") => &[],
        _ => return None,
    })
}
