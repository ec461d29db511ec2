//! Element types and reduction operators.
//!
//! Everything below the `Communicator` works on bytes and a [`DType`]; the generic [`Element`]
//! trait is the one bridge between the two.

use std::fmt;

use half::{bf16, f16};

/// The type of one element of a collective.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
    /// bfloat16: reduced in f32 and rounded once.
    Bf16,
    /// IEEE half precision: reduced in f32 and rounded once.
    F16,
    /// Signed 32 bits; sums and products wrap.
    I32,
    /// Signed 64 bits; sums and products wrap.
    I64,
    /// Unsigned 32 bits; sums and products wrap.
    U32,
    /// Unsigned 64 bits; sums and products wrap.
    U64,
}

impl DType {
    /// All types.
    pub const ALL: [DType; 8] = [
        DType::F32,
        DType::F64,
        DType::Bf16,
        DType::F16,
        DType::I32,
        DType::I64,
        DType::U32,
        DType::U64,
    ];

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            DType::Bf16 | DType::F16 => 2,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F64 | DType::I64 | DType::U64 => 8,
        }
    }

    /// Whether partial results need more precision than the type has.
    pub fn is_half(self) -> bool {
        matches!(self, DType::Bf16 | DType::F16)
    }

    /// The name in the command line and in messages.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::Bf16 => "bf16",
            DType::F16 => "f16",
            DType::I32 => "i32",
            DType::I64 => "i64",
            DType::U32 => "u32",
            DType::U64 => "u64",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A reduction operator.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// The sum.
    Sum,
    /// The product.
    Product,
    /// The smallest; NaN if any contribution is NaN; −0 is below +0.
    Min,
    /// The largest; NaN if any contribution is NaN; +0 is above −0.
    Max,
    /// The sum divided by the number of ranks; integers round towards zero.
    Average,
}

impl Op {
    /// All operators.
    pub const ALL: [Op; 5] = [Op::Sum, Op::Product, Op::Min, Op::Max, Op::Average];

    /// The name in the command line and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Op::Sum => "sum",
            Op::Product => "product",
            Op::Min => "min",
            Op::Max => "max",
            Op::Average => "average",
        }
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A type that collectives can move and reduce.
///
/// Sealed: the element types are those of [`DType`]. [`bytemuck::Pod`] makes every byte pattern a
/// value, so a peer can never hand over an invalid one.
pub trait Element:
    bytemuck::Pod + PartialEq + PartialOrd + Default + fmt::Debug + Send + Sync + sealed::Sealed
{
    /// The run-time name of this type.
    const DTYPE: DType;

    /// From a small whole number, exactly; for tests and fills.
    fn from_small(value: u8) -> Self;

    /// The nearest double.
    fn to_f64(self) -> f64;
}

macro_rules! elements {
    ($($type:ty => $dtype:ident, $from:expr, $to:expr;)*) => {$(
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: DType = DType::$dtype;
            fn from_small(value: u8) -> Self { $from(value) }
            fn to_f64(self) -> f64 { $to(self) }
        }
    )*};
}

elements! {
    f32 => F32, f32::from, f64::from;
    f64 => F64, f64::from, |x| x;
    bf16 => Bf16, bf16::from, f64::from;
    f16 => F16, f16::from, f64::from;
    i32 => I32, i32::from, f64::from;
    i64 => I64, i64::from, |x| x as f64;
    u32 => U32, u32::from, f64::from;
    u64 => U64, u64::from, |x| x as f64;
}

/// Runs `$body` with `$t` as the Rust type of a [`DType`].
#[macro_export]
macro_rules! with_element_type {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            $crate::element::DType::F32 => {
                type $t = f32;
                $body
            }
            $crate::element::DType::F64 => {
                type $t = f64;
                $body
            }
            $crate::element::DType::Bf16 => {
                type $t = ::half::bf16;
                $body
            }
            $crate::element::DType::F16 => {
                type $t = ::half::f16;
                $body
            }
            $crate::element::DType::I32 => {
                type $t = i32;
                $body
            }
            $crate::element::DType::I64 => {
                type $t = i64;
                $body
            }
            $crate::element::DType::U32 => {
                type $t = u32;
                $body
            }
            $crate::element::DType::U64 => {
                type $t = u64;
                $body
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_names_match_the_types() {
        for dtype in DType::ALL {
            with_element_type!(dtype, T => {
                assert_eq!(T::DTYPE, dtype);
                assert_eq!(size_of::<T>(), dtype.bytes());
                assert_eq!(T::from_small(7).to_f64(), 7.0);
                let name = std::any::type_name::<T>();
                assert!(name.ends_with(dtype.name()), "{name}");
            });
        }
    }
}
