//! Loops that the compiler vectorizes for AVX2 where the processor has it. Rust never reorders or fuses operations on floats,
//! so that both forms compute the same numbers.

/// Adding and subtracting it rounds a float of less than four million to a whole number.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// The nearest whole number of a float of less than four million, as a float and as a number; the even one of two.
#[inline(always)]
pub(crate) fn rounded(value: f32) -> (f32, i32) {
    let shifted = value + ROUND;
    (shifted - ROUND, shifted.to_bits().wrapping_sub(ROUND.to_bits()).cast_signed())
}

/// Defines a function that calls another one, which is always inlined: compiled for AVX2 where the processor has it.
macro_rules! vectorized {
    ($(#[$attribute:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) = $portable:ident) => {
        $(#[$attribute])*
        $visibility fn $name($($argument: $type),*) {
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") {
                #[target_feature(enable = "avx2")]
                fn wide($($argument: $type),*) {
                    $portable($($argument),*);
                }
                // SAFETY: the processor has AVX2.
                return unsafe { wide($($argument),*) };
            }
            $portable($($argument),*);
        }
    };
}

pub(crate) use vectorized;
