//! How fast expressions are; run by hand: `cargo test --release -p mill-plan --test planning speed -- --ignored --nocapture`.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use mill_plan::{BinaryOp, CompiledExpr, Expr};

const ROWS: usize = 16_384;
const ROUNDS: usize = 400;

fn measure(name: &str, unit: f64, expr: &Expr, batch: &RecordBatch) {
    let compiled = CompiledExpr::new(expr, &batch.schema()).unwrap();
    compiled.evaluate(batch).unwrap();
    let start = Instant::now();
    for _ in 0..ROUNDS {
        std::hint::black_box(compiled.evaluate(batch).unwrap());
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{name:<32} {:8.1} M/s", unit * ROUNDS as f64 / seconds / 1e6);
}

#[test]
#[ignore = "a measurement"]
fn figures() {
    let words = "The quick brown fox jumps over the lazy dog, and doesn't look back. ";
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("price", Arc::new(Float64Array::from_iter_values((0..ROWS).map(|i| i as f64 * 0.37)))),
        ("auction", Arc::new(Int64Array::from_iter_values((0..ROWS).map(|i| (i as i64 * 7919) % 600_000)))),
        ("line", Arc::new(StringArray::from_iter_values((0..1024).cycle().take(ROWS).map(|i| &words[..20 + i % 40])))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let rows = ROWS as f64;
    let (price, auction) = (Expr::column("price"), Expr::column("auction"));
    measure("column", rows, &price, &batch);
    measure("price * 0.908", rows, &price.clone().binary(BinaryOp::Mul, Expr::literal(0.908)), &batch);
    measure("price > 100", rows, &price.clone().binary(BinaryOp::Gt, Expr::literal(100_i64)), &batch);
    let modulo = auction.clone().binary(BinaryOp::Mod, Expr::literal(123_i64));
    measure("auction % 123", rows, &modulo, &batch);
    measure("auction % 123 == 0", rows, &modulo.binary(BinaryOp::Eq, Expr::literal(0_i64)), &batch);
    measure("auction + 1 (checked)", rows, &auction.clone().binary(BinaryOp::Add, Expr::literal(1_i64)), &batch);
    measure("auction * auction (checked)", rows, &auction.clone().binary(BinaryOp::Mul, auction), &batch);
    let lower = Expr::function("str.to_lowercase", vec![Expr::column("line")]).unwrap();
    measure("to_lowercase (rows)", rows, &lower, &batch);
    for pattern in ["[a-z']+", "(?:[a-z']+)"] {
        let all = Expr::function("str.extract_all", vec![lower.clone(), Expr::literal(pattern)]).unwrap();
        let compiled = CompiledExpr::new(&all, &batch.schema()).unwrap();
        let found = compiled.evaluate(&batch).unwrap();
        let count = arrow::array::AsArray::as_list::<i32>(found.as_ref()).values().len() as f64;
        measure(&format!("extract_all {pattern} (words)"), count, &all, &batch);
    }
}
