//! Kinds of COMPLEX values that are bytes.

const KINDS: [&str; 13] = [
    "HLLSketch",
    "HLLSketchBuild",
    "HLLSketchMerge",
    "thetaSketch",
    "thetaSketchBuild",
    "thetaSketchMerge",
    "quantilesDoublesSketch",
    "KllDoublesSketch",
    "KllFloatsSketch",
    "arrayOfDoublesSketch",
    "hyperUnique",
    "bloom",
    "variance",
];

/// True if values of `COMPLEX<kind>` are bytes, which are written as base64 where there is only text.
pub fn is_binary_kind(kind: &str) -> bool {
    KINDS.contains(&kind)
}
