//! The ready operators, and failures of an operator.

use super::*;

fn merged(
    operator: Arc<dyn MergeOperator>,
    base: Option<&[u8]>,
    operands: &[&[u8]],
) -> Result<Vec<u8>> {
    let merger = Merger::new("f", &MergeSetting::new(operator));
    let mut chain = Chain::default();
    for (at, operand) in operands.iter().rev().enumerate() {
        chain.push(at as u64, operand);
    }
    let mut result = b"old".to_vec();
    merger
        .full(b"k", base, &chain, &mut result)
        .map(|()| result)
}

#[test]
fn numbers_are_added_in_either_order_of_bytes_and_wrap() {
    let little = || Arc::new(U64Add(ByteOrderOf::LittleEndian));
    let big = || Arc::new(U64Add(ByteOrderOf::BigEndian));
    let (two, most) = (2_u64, u64::MAX);
    let sum = merged(little(), None, &[&two.to_le_bytes(), &two.to_le_bytes()]);
    assert_eq!(sum.expect("a sum"), 4_u64.to_le_bytes());
    let sum = merged(big(), Some(&most.to_be_bytes()), &[&two.to_be_bytes()]);
    assert_eq!(sum.expect("a sum"), 1_u64.to_be_bytes());
    let error = merged(little(), Some(b"short"), &[&two.to_le_bytes()]).expect_err("no number");
    assert!(error.to_string().contains("merge of key \"k\""), "{error}");
    assert_ne!(little().name(), big().name());
}

#[test]
fn bytes_are_appended_with_the_delimiter_between_and_it_is_part_of_the_name() {
    let comma = || Arc::new(AppendWithDelimiter::new(b", "));
    assert_eq!(
        merged(comma(), None, &[b"a", b"", b"c"]).expect("merged"),
        b"a, , c"
    );
    assert_eq!(merged(comma(), Some(b""), &[b"a"]).expect("merged"), b", a");
    let mut result = Vec::new();
    assert_eq!(
        comma().partial_merge(b"k", b"a", b"b", &mut result),
        Ok(true)
    );
    assert_eq!(result, b"a, b");
    assert_eq!(comma().name(), "basalt.append.2c20");
}

/// Panics, or answers more than a value may be.
struct Bad(usize);

impl MergeOperator for Bad {
    fn name(&self) -> &'static str {
        "bad"
    }

    fn full_merge(
        &self,
        _: &[u8],
        _: Option<&[u8]>,
        _: &[&[u8]],
        result: &mut Vec<u8>,
    ) -> MergeResult {
        assert!(self.0 > 0, "no size");
        result.resize(self.0, 0);
        Ok(())
    }
}

#[test]
fn a_panic_and_a_result_over_the_limit_are_errors_that_name_the_key() {
    let error = merged(Arc::new(Bad(0)), None, &[b"a"]).expect_err("a panic");
    assert!(
        matches!(&error, Error::Merge { key, what } if key == b"k" && what.contains("no size")),
        "{error}"
    );
    let error = merged(Arc::new(Bad(MAX_VALUE_LEN + 1)), None, &[b"a"]).expect_err("too long");
    assert!(
        matches!(&error, Error::Merge { what, .. } if what.contains("limit")),
        "{error}"
    );
    assert_eq!(
        merged(Arc::new(Bad(3)), None, &[b"a"]).expect("three"),
        [0; 3]
    );
}
