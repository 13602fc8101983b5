//! The field GF(2^8) with the polynomial x^8 + x^4 + x^3 + x^2 + 1, and the tables that engines multiply by.
//!
//! Adding and subtracting are both XOR. Everything here is made by the compiler.

/// x^8 + x^4 + x^3 + x^2 + 1 without its highest term: what is added where doubling leaves the byte.
pub(crate) const REDUCTION: u8 = 0x1d;

/// The elements but zero are the powers of two, 255 of them.
pub(crate) const ORDER: usize = 255;

/// Powers of two, twice around, so that a sum of two logarithms needs no modulo.
const EXP: [u8; 2 * ORDER] = {
    let mut powers = [1; 2 * ORDER];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = double(powers[at - 1]);
        at += 1;
    }
    powers
};

/// Logarithms to the base two; that of zero is never asked for.
const LOG: [u8; 256] = {
    let mut logs = [0; 256];
    let mut at = 0;
    while at < u8::MAX {
        logs[EXP[at as usize] as usize] = at;
        at += 1;
    }
    logs
};

/// Twice an element.
pub(crate) const fn double(a: u8) -> u8 {
    (a << 1) ^ (if a & 0x80 == 0 { 0 } else { REDUCTION })
}

/// The product of two elements.
pub(crate) const fn mul(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 { 0 } else { EXP[LOG[a as usize] as usize + LOG[b as usize] as usize] }
}

/// The logarithm of an element that is not zero.
pub(crate) const fn log(a: u8) -> usize {
    LOG[a as usize] as usize
}

/// The element with this logarithm, which may be any multiple of [`ORDER`] too large.
pub(crate) const fn exp(log: usize) -> u8 {
    EXP[log % ORDER]
}

/// For each factor the products of the 16 low halves of a byte, then those of the 16 high ones: what engines look up that
/// can look up 16 bytes at once.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) static NIBBLES: [[u8; 32]; 256] = {
    let mut tables = [[0; 32]; 256];
    let mut factor: u16 = 0;
    while factor < 256 {
        let mut nibble: u8 = 0;
        while nibble < 16 {
            tables[factor as usize][nibble as usize] = mul(factor.to_le_bytes()[0], nibble);
            tables[factor as usize][16 + nibble as usize] = mul(factor.to_le_bytes()[0], nibble << 4);
            nibble += 1;
        }
        factor += 1;
    }
    tables
};

/// For each factor the 8 x 8 matrix of bits that multiplies by it, as GFNI's affine instruction wants it: byte 7 - i of
/// the number has the bits of the source of which bit i of the product is the sum.
#[cfg(target_arch = "x86_64")]
pub(crate) static AFFINE: [u64; 256] = {
    let mut matrices = [0; 256];
    let mut factor: u16 = 0;
    while factor < 256 {
        let mut bit = 0;
        while bit < 8 {
            let product = mul(factor.to_le_bytes()[0], 1 << bit);
            let mut row = 0;
            while row < 8 {
                matrices[factor as usize] |= ((product >> row & 1) as u64) << (8 * (7 - row) + bit);
                row += 1;
            }
            bit += 1;
        }
        factor += 1;
    }
    matrices
};
