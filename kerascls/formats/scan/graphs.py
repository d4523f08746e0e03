"""The graph of a SavedModel, functions included: which operations it holds.

TensorFlow runs whatever stands in it, and there are operations that read and write files, call Python or the network.
Those below compute, keep variables and tables, and decode images from memory; a graph of these alone touches no file
but the model's own variables.
"""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kerascls.errors import ModelError
from kerascls.formats.card import CARD
from kerascls.formats.scan.limits import check_regular, read_text
from kerascls.formats.scan.protobuf import schema, text

MOST_GRAPH = 512 << 20  # bytes of a saved_model.pb, which may hold constants; protocol buffers end at 2 GB

OPS = set(
    # arithmetic
    """
    Abs Acos Acosh Add AddN AddV2 All Angle Any ApproximateEqual ArgMax ArgMin Asin Asinh Atan Atan2 Atanh BatchMatMul
    BatchMatMulV2 BatchMatMulV3 Betainc Bincount BitwiseAnd BitwiseOr BitwiseXor Bucketize Cast Ceil CheckNumerics
    ClipByValue Complex ComplexAbs Conj Cos Cosh Cross Cumprod Cumsum CumulativeLogsumexp DenseBincount Digamma Div
    DivNoNan Einsum Equal Erf Erfc Erfinv Exp Expm1 FFT FFT2D Floor FloorDiv FloorMod Greater GreaterEqual
    HistogramFixedWidth IFFT IFFT2D IRFFT IRFFT2D Igamma Igammac Imag Inv Invert IsFinite IsInf IsNan L2Loss LeftShift
    Less LessEqual Lgamma LinSpace Log Log1p LogicalAnd LogicalNot LogicalOr MatMul Max Maximum Mean Min Minimum Mod Mul
    MulNoNan Ndtri Neg NextAfter NotEqual Polygamma Pow Prod RFFT RFFT2D Range Real RealDiv Reciprocal RightShift Rint
    Round Rsqrt SegmentMax SegmentMean SegmentMin SegmentProd SegmentSum Select SelectV2 Sigmoid Sign Sin Sinh
    SparseMatMul Sqrt Square SquaredDifference Sub Sum Tan Tanh TruncateDiv TruncateMod UnsortedSegmentMax
    UnsortedSegmentMin UnsortedSegmentProd UnsortedSegmentSum Xdivy Xlog1py Xlogy Zeta
    """.split()
    # linear algebra
    + """
    Cholesky MatrixBandPart MatrixDeterminant MatrixDiag MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3 MatrixDiagV2
    MatrixDiagV3 MatrixInverse MatrixSetDiag MatrixSetDiagV2 MatrixSetDiagV3 MatrixSolve MatrixTriangularSolve Qr
    SelfAdjointEigV2 Svd
    """.split()
    # shapes and places
    + """
    BatchToSpace BatchToSpaceND Bitcast BroadcastArgs BroadcastTo Concat ConcatV2 Const DeepCopy Diag DiagPart
    DynamicPartition DynamicStitch EnsureShape ExpandDims Fill Gather GatherNd GatherV2 Identity IdentityN InTopK
    InTopKV2 InvertPermutation ListDiff LowerBound MirrorPad NonMaxSuppression NonMaxSuppressionV3 OneHot OnesLike Pack
    Pad PadV2 ParallelConcat ParallelDynamicStitch Placeholder PlaceholderV2 PlaceholderWithDefault PreventGradient Rank
    Reshape ReverseSequence Reverse ReverseV2 Roll ScatterNd Shape ShapeN Size Slice Snapshot SpaceToBatch
    SpaceToBatchND Split SplitV Squeeze StopGradient StridedSlice TensorScatterAdd TensorScatterMax TensorScatterMin
    TensorScatterSub TensorScatterUpdate Tile TopK TopKV2 Transpose Unique UniqueV2 UniqueWithCounts UniqueWithCountsV2
    Unpack UnravelIndex UpperBound Where ZerosLike
    """.split()
    # neural networks
    + """
    AvgPool AvgPool3D BiasAdd BiasAddV1 Conv Conv2D Conv2DBackpropInput Conv2DBackpropInputV2 Conv3D
    Conv3DBackpropInputV2 DataFormatDimMap DataFormatVecPermute DepthToSpace DepthwiseConv2dNative Dilation2D Elu
    FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel FractionalAvgPool
    FractionalMaxPool FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 LRN LeakyRelu LogSoftmax MaxPool MaxPool3D
    MaxPoolV2 MaxPoolWithArgmax Relu Relu6 Selu Softmax Softplus Softsign SpaceToDepth _FusedBatchNormEx _FusedConv2D
    _FusedMatMul
    """.split()
    # images, from memory
    + """
    AdjustContrastv2 AdjustHue AdjustSaturation CropAndResize DecodeAndCropJpeg DecodeBmp DecodeGif DecodeImage
    DecodeJpeg DecodePng DecodeWebP EncodeJpeg EncodeJpegVariableQuality EncodePng ExtractGlimpse ExtractGlimpseV2
    ExtractImagePatches ExtractJpegShape HSVToRGB ImageProjectiveTransformV2 ImageProjectiveTransformV3 RGBToHSV
    ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor ScaleAndTranslate
    """.split()
    # strings
    + """
    AsString DecodeBase64 DecodeRaw DecodePaddedRaw DecodeCompressed EncodeBase64 ReduceJoin RegexFullMatch RegexReplace
    StaticRegexFullMatch StaticRegexReplace StringFormat StringJoin StringLength StringLower StringNGrams StringSplit
    StringSplitV2 StringStrip StringToHashBucket StringToHashBucketFast StringToHashBucketStrong StringToNumber
    StringUpper Substr UnicodeDecode UnicodeDecodeWithOffsets UnicodeEncode UnicodeScript UnicodeTranscode
    UnsortedSegmentJoin
    """.split()
    # variables and tables
    + """
    AnonymousHashTable AnonymousMutableHashTable AssignAddVariableOp AssignSubVariableOp AssignVariableOp
    DestroyResourceOp DisableCopyOnRead HashTableV2 InitializeTableV2 LookupTableExportV2 LookupTableFindV2
    LookupTableImportV2 LookupTableInsertV2 LookupTableSizeV2 MutableHashTableV2 ReadVariableOp ResourceGather
    ResourceGatherNd ResourceScatterAdd ResourceScatterUpdate VarHandleOp VarIsInitializedOp VariableShape
    """.split()
    # lists and arrays of tensors
    + """
    EmptyTensorList TensorArrayCloseV3 TensorArrayConcatV3 TensorArrayGatherV3 TensorArrayReadV3 TensorArrayScatterV3
    TensorArraySizeV3 TensorArraySplitV3 TensorArrayV3 TensorArrayWriteV3 TensorListConcat TensorListConcatLists
    TensorListConcatV2 TensorListElementShape TensorListFromTensor TensorListGather TensorListGetItem TensorListLength
    TensorListPopBack TensorListPushBack TensorListPushBackBatch TensorListReserve TensorListResize TensorListScatter
    TensorListScatterV2 TensorListSetItem TensorListSplit TensorListStack
    """.split()
    # ragged and sparse tensors
    + """
    RaggedBincount RaggedGather RaggedRange RaggedTensorFromVariant RaggedTensorToSparse RaggedTensorToTensor
    RaggedTensorToVariant SparseConcat SparseFillEmptyRows SparseReorder SparseReshape SparseSegmentMean
    SparseSegmentSqrtN SparseSegmentSum SparseSlice SparseSoftmax SparseTensorDenseMatMul SparseToDense
    """.split()
    # random numbers
    + """
    Multinomial RandomShuffle RandomStandardNormal RandomUniform RandomUniformInt StatelessMultinomial
    StatelessRandomGetAlg StatelessRandomGetKeyCounter StatelessRandomNormal StatelessRandomNormalV2
    StatelessRandomUniform StatelessRandomUniformInt StatelessRandomUniformIntV2 StatelessRandomUniformV2
    StatelessTruncatedNormal StatelessTruncatedNormalV2 TruncatedNormal
    """.split()
    # whole numbers for floats
    + """
    Dequantize FakeQuantWithMinMaxArgsGradient QuantizeAndDequantizeV2 QuantizeAndDequantizeV3 QuantizeAndDequantizeV4
    QuantizeDownAndShrinkRange QuantizeV2 QuantizedBiasAdd QuantizedConv2D QuantizedMatMul QuantizedMaxPool
    QuantizedRelu RequantizationRange Requantize
    """.split()
    # order; what is called is looked into
    + """
    Assert Case ControlTrigger Enter Exit If LoopCond Merge NextIteration NoOp PartitionedCall RefEnter RefExit
    RefIdentity RefMerge RefNextIteration RefSwitch StatefulPartitionedCall StatelessCase StatelessIf StatelessWhile
    Switch While
    """.split()
)
# What saves and restores a model's variables: only in the two functions of its saver.
SAVER = {"MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename"}

_SCHEMA = """
    SavedModel: version=1 int, meta_graphs=2 MetaGraph*
    MetaGraph: info=1 Info, graph=2 Graph, saver=3 Saver, signatures=5 SignatureEntry*, assets=6 Asset*, objects=7 Tree
    Info: tags=4 string*, tensorflow_version=5 string
    Saver: filename=1 string, save=2 string, restore=3 string
    Asset: filename=2 string
    Graph: node=1 Node*, library=2 Library
    Library: function=1 Function*
    Function: signature=1 Signature, node=3 Node*
    Signature: name=1 string, input=2 Argument*
    Argument: name=1 string
    Node: name=1 string, op=2 string, input=3 string*, attributes=5 AttributeEntry*
    AttributeEntry: key=1 string, value=2 Attribute
    Attribute: list=1 List, type=6 int, shape=7 Shape, function=10 Called
    List: function=9 Called*
    Called: name=1 string
    Shape: dimension=2 Dimension*
    Dimension: size=1 int
    SignatureEntry: key=1 string, value=2 SignatureDef
    SignatureDef: input=1 TensorEntry*, output=2 TensorEntry*
    TensorEntry: key=1 string, value=2 Tensor
    Tensor: type=2 int, shape=3 Shape
    Tree: concrete=2 ConcreteEntry*
    ConcreteEntry: key=1 string
"""
_TYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    7: "string",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    19: "float16",
}


@dataclasses.dataclass(frozen=True)
class Graph:
    """What a saved_model.pb says.

    Attributes:
        foreign: (operation, function) of each operation that only a trusted model may have; "" is the graph itself.
        signatures: {name: {"inputs": {name: text}, "outputs": {name: text}}}.
        values: how many numbers its variables are.
        written_with: {package: version}.
        card: the text of its card, or None.
    """

    foreign: tuple[tuple[str, str], ...]
    signatures: dict[str, dict[str, dict[str, str]]]
    values: int
    written_with: dict[str, str]
    card: str | None


def read_graph(folder: Path) -> Graph:
    """The graph of the SavedModel in `folder`, which has saved_model.pb.

    Raises:
        ModelError: it is damaged, too large, or names assets elsewhere.
    """
    file, card = folder / "saved_model.pb", folder / "assets" / CARD
    check_regular(folder, *(path for name in ("variables", "assets") for path in (folder / name).glob("*")))
    if file.stat().st_size > MOST_GRAPH:
        raise _refused(folder, f"its saved_model.pb has {file.stat().st_size:,} bytes, more than {MOST_GRAPH:,}")
    try:
        saved = schema(_SCHEMA)["SavedModel"].FromString(file.read_bytes())
    except Exception as error:  # google.protobuf has its own
        raise ModelError(f"{folder} cannot be loaded: its saved_model.pb is cut short or damaged ({error}).") from None
    if not saved.meta_graphs:
        raise ModelError(f"{folder} cannot be loaded: its saved_model.pb holds no graph.")
    foreign: dict[tuple[str, str], None] = {}  # in order, once
    for meta in saved.meta_graphs:
        for asset in meta.assets:
            name = text(asset.filename)
            if not name or "/" in name or "\\" in name or name == "..":
                raise _refused(folder, f"it names the asset {name[:100]!r}, which is not in its folder of assets")
        foreign |= dict.fromkeys(_foreign(meta))
    meta = saved.meta_graphs[0]
    variables = [node for node in meta.graph.node if node.op == b"VarHandleOp"]
    version = text(meta.info.tensorflow_version)
    return Graph(
        tuple(foreign),
        {text(entry.key): _signature(entry.value) for entry in meta.signatures if not entry.key.startswith(b"__")},
        sum(map(_count, variables)),
        {"tensorflow": version} if version else {},
        read_text(card).decode("utf-8", "replace") if card.is_file() else None,
    )


def check_graph(folder: Path, graph: Graph) -> None:
    """Raises ModelError where the SavedModel in `folder` holds an operation that only a trusted one may."""
    if graph.foreign:
        op, function = graph.foreign[0]
        others = len({op for op, _ in graph.foreign}) - 1
        where = f" in function {function[:100]}" if function else ""
        raise _refused(
            folder,
            f"op {op[:100]}{where}{f' and {others} other ops' if others else ''} may reach beyond the model, to files, "
            "network or Python; --trust loads it (predict, serve), if you trust its maker as a program's",
        )


def _foreign(meta: Any) -> Iterator[tuple[str, str]]:
    """(operation, function) of what is not on the list, or stands where it must not."""
    functions = {function.signature.name: function for function in meta.graph.library.function}
    saving = {name for name, function in functions.items() if any(text(node.op) in SAVER for node in function.node)}
    # The saver's functions are called once each, by its two nodes, which pass on the file name that the saver is given.
    nodes = {name.partition(b":")[0] for name in (meta.saver.save, meta.saver.restore)}
    filename = meta.saver.filename.partition(b":")[0]
    misused = {entry.key for entry in meta.objects.concrete} & saving
    for caller, body in [(b"", meta.graph.node), *((name, one.node) for name, one in functions.items())]:
        for node in body:
            called = set(_called(node, functions)) & saving
            if called and (caller or node.name not in nodes or list(node.input[:1]) != [filename]):
                misused |= called
    for caller, body in [(b"", meta.graph.node), *((name, one.node) for name, one in functions.items())]:
        first = [argument.name for argument in functions[caller].signature.input[:1]] if caller else []
        for node in body:
            op = text(node.op)
            if op in OPS or node.op in functions:
                continue
            own = op in SAVER and caller in saving - misused
            if own and op == "RestoreV2":
                own = list(node.input[:1]) == first
            if own and op == "MergeV2Checkpoints":
                own = list(node.input[1:2]) == first
            if not own:
                yield op, text(caller)


def _called(node: Any, functions: Any) -> Iterator[bytes]:
    """Names of the functions that a node calls."""
    if node.op in functions:
        yield node.op
    for entry in node.attributes:
        yield entry.value.function.name
        yield from (one.name for one in entry.value.list.function)


def _count(variable: Any) -> int:
    """The numbers of a variable; none of one that keeps the name of an asset."""
    stated = {entry.key: entry.value for entry in variable.attributes}
    if not {b"shape", b"dtype"} <= stated.keys() or _TYPES.get(stated[b"dtype"].type) == "string":
        return 0
    return min(math.prod(max(0, side.size) for side in stated[b"shape"].shape.dimension), 2**63)  # more cannot be told


def _signature(signature: Any) -> dict[str, dict[str, str]]:
    def shown(tensor: Any) -> str:
        sides = ", ".join("None" if side.size < 0 else str(side.size) for side in tensor.shape.dimension)
        return f"{_TYPES.get(tensor.type, f'type {tensor.type}')} ({sides})"

    return {
        "inputs": {text(entry.key): shown(entry.value) for entry in signature.input},
        "outputs": {text(entry.key): shown(entry.value) for entry in signature.output},
    }


def _refused(folder: Path, why: str) -> ModelError:
    return ModelError(f"{folder} is refused before anything in it runs: {why}.")
