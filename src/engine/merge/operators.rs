//! Merge operators that are ready to use.

use super::{MergeOperator, MergeResult};

/// Adds numbers of 64 bits, which wrap around; an absent key counts as 0. Value and operands have eight bytes.
#[derive(Clone, Copy, Debug)]
pub struct U64Add(pub ByteOrderOf);

/// The order of the bytes of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrderOf {
    /// The lowest first.
    LittleEndian,
    /// The highest first, so that values order as the numbers do.
    BigEndian,
}

impl U64Add {
    fn read(self, bytes: &[u8]) -> MergeResult<u64> {
        let bytes: [u8; 8] = bytes
            .try_into()
            .map_err(|_| format!("a number of {} bytes, not 8", bytes.len()))?;
        Ok(match self.0 {
            ByteOrderOf::LittleEndian => u64::from_le_bytes(bytes),
            ByteOrderOf::BigEndian => u64::from_be_bytes(bytes),
        })
    }

    fn write(self, number: u64, result: &mut Vec<u8>) {
        result.extend_from_slice(&match self.0 {
            ByteOrderOf::LittleEndian => number.to_le_bytes(),
            ByteOrderOf::BigEndian => number.to_be_bytes(),
        });
    }
}

impl MergeOperator for U64Add {
    fn name(&self) -> &str {
        match self.0 {
            ByteOrderOf::LittleEndian => "basalt.u64add.le",
            ByteOrderOf::BigEndian => "basalt.u64add.be",
        }
    }

    fn full_merge(
        &self,
        _key: &[u8],
        existing: Option<&[u8]>,
        operands: &[&[u8]],
        result: &mut Vec<u8>,
    ) -> MergeResult {
        let mut sum = existing.map_or(Ok(0), |bytes| self.read(bytes))?;
        for operand in operands {
            sum = sum.wrapping_add(self.read(operand)?);
        }
        self.write(sum, result);
        Ok(())
    }

    fn partial_merge(
        &self,
        _key: &[u8],
        older: &[u8],
        newer: &[u8],
        result: &mut Vec<u8>,
    ) -> MergeResult<bool> {
        let sum = self.read(older)?.wrapping_add(self.read(newer)?);
        self.write(sum, result);
        Ok(true)
    }
}

/// Appends operands to the value, a delimiter between each two; an absent key begins with the first operand alone.
#[derive(Clone, Debug)]
pub struct AppendWithDelimiter {
    delimiter: Vec<u8>,
    /// Another delimiter is another operator.
    name: String,
}

impl AppendWithDelimiter {
    /// With this delimiter, of at most 64 bytes; it may be empty.
    ///
    /// # Panics
    ///
    /// For a longer one.
    #[must_use]
    pub fn new(delimiter: &[u8]) -> Self {
        assert!(delimiter.len() <= 64, "a delimiter of at most 64 bytes");
        let hex: String = delimiter.iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            delimiter: delimiter.to_vec(),
            name: format!("basalt.append.{hex}"),
        }
    }
}

impl MergeOperator for AppendWithDelimiter {
    fn name(&self) -> &str {
        &self.name
    }

    fn full_merge(
        &self,
        _key: &[u8],
        existing: Option<&[u8]>,
        operands: &[&[u8]],
        result: &mut Vec<u8>,
    ) -> MergeResult {
        let parts = existing.into_iter().chain(operands.iter().copied());
        for (at, part) in parts.enumerate() {
            if at > 0 {
                result.extend_from_slice(&self.delimiter);
            }
            result.extend_from_slice(part);
        }
        Ok(())
    }

    fn partial_merge(
        &self,
        key: &[u8],
        older: &[u8],
        newer: &[u8],
        result: &mut Vec<u8>,
    ) -> MergeResult<bool> {
        self.full_merge(key, Some(older), &[newer], result)?;
        Ok(true)
    }
}
