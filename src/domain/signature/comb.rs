//! Multiples of a point that does not change: a table of its multiples in place of doublings.
//!
//! A scalar is written in signed digits of `WIDTH` bits; the table holds every digit's multiple at
//! every place, so a multiplication is one addition per digit. Only the group operations of
//! `curve25519-dalek` are used. Variable time: for public scalars (verification) only.

use curve25519_dalek::EdwardsPoint;
use curve25519_dalek::Scalar;

/// Bits of a reduced scalar, rounded up to whole bytes; the group order is a little over 2^252, so the
/// last carry always fits.
const SCALAR_BITS: usize = 256;

/// The multiples of one point. `WIDTH` is 4 or 8: digits that do not straddle bytes.
pub(in crate::domain::signature) struct Comb<const WIDTH: usize> {
    /// `2^(WIDTH-1)` points per place: 1, 2, 3 … times `2^(WIDTH × place)` times the point.
    places: Box<[EdwardsPoint]>,
}

impl<const WIDTH: usize> Comb<WIDTH> {
    const PER_PLACE: usize = 1 << (WIDTH - 1);
    const PLACES: usize = SCALAR_BITS / WIDTH;

    /// Bytes one table takes.
    pub(in crate::domain::signature) const BYTES: usize =
        Self::PLACES * Self::PER_PLACE * std::mem::size_of::<EdwardsPoint>();

    /// Computes the table: about 0.1 ms for width 4.
    pub(in crate::domain::signature) fn new(point: EdwardsPoint) -> Self {
        const { assert!(WIDTH == 4 || WIDTH == 8, "digits must not straddle bytes") };
        let mut places = Vec::with_capacity(Self::PLACES * Self::PER_PLACE);
        let mut unit = point;
        for _ in 0..Self::PLACES {
            let mut multiple = unit;
            for _ in 1..Self::PER_PLACE {
                places.push(multiple);
                multiple += unit;
            }
            // Now 2^(WIDTH-1) units; twice that is the next place's unit.
            places.push(multiple);
            unit = multiple + multiple;
        }
        Self { places: places.into_boxed_slice() }
    }

    /// `sum + scalar × point`.
    pub(in crate::domain::signature) fn add_multiple(&self, mut sum: EdwardsPoint, scalar: &Scalar) -> EdwardsPoint {
        let mut places = self.places.chunks_exact(Self::PER_PLACE);
        let mut carry = 0_usize;
        for byte in scalar.as_bytes() {
            for digit in 0..8 / WIDTH {
                let Some(multiples) = places.next() else { return sum };
                let mask = (1_usize << WIDTH) - 1;
                let value = ((usize::from(*byte) >> (digit * WIDTH)) & mask) + carry;
                // A digit above half is written as itself less one of the next place.
                carry = usize::from(value > Self::PER_PLACE);
                if carry == 0 {
                    if let Some(multiple) = value.checked_sub(1).and_then(|at| multiples.get(at)) {
                        sum += multiple;
                    }
                } else {
                    let negative = (1_usize << WIDTH) - value;
                    if let Some(multiple) = negative.checked_sub(1).and_then(|at| multiples.get(at)) {
                        sum -= multiple;
                    }
                }
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code may panic")]

    use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
    use curve25519_dalek::traits::Identity as _;
    use proptest::prelude::*;

    use super::*;

    fn check(scalar: &Scalar) {
        let point = ED25519_BASEPOINT_POINT * Scalar::from(7_u64);
        let four = Comb::<4>::new(point).add_multiple(EdwardsPoint::identity(), scalar);
        let eight = Comb::<8>::new(point).add_multiple(point, scalar);
        assert_eq!(four, point * scalar);
        assert_eq!(eight, point * scalar + point);
    }

    #[test]
    fn edges_of_the_digits() {
        for byte in [0_u8, 1, 7, 8, 9, 0x0f, 0x10, 0x77, 0x78, 0x7f, 0x80, 0x81, 0x87, 0x88, 0x89, 0xf8, 0xff] {
            check(&Scalar::from_bytes_mod_order([byte; 32]));
        }
        let last = Scalar::ZERO - Scalar::ONE;
        for scalar in [Scalar::ZERO, Scalar::ONE, last] {
            check(&scalar);
        }
        // The largest reduced scalars, whose highest digits take a carry.
        let mut bytes = [0xff; 32];
        bytes[31] = 0x0f;
        check(&Scalar::from_canonical_bytes(bytes).unwrap());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn equals_the_librarys_multiplication(bytes: [u8; 32]) {
            check(&Scalar::from_bytes_mod_order(bytes));
        }
    }
}
