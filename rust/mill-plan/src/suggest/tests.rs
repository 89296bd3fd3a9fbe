use arrow::datatypes::{DataType, Field, Schema};

use super::*;

#[test]
fn a_swapped_letter_is_found() {
    assert_eq!(nearest("pirce", ["user", "price", "at"]), ["price"]);
    assert_eq!(nearest("lower", ["str.to_lowercase", "abs"]), ["str.to_lowercase"]);
    assert!(nearest("zzz", ["user", "price"]).is_empty());
}

#[test]
fn the_message_lists_the_columns() {
    let schema = Schema::new(vec![
        Field::new("user", DataType::Utf8, true),
        Field::new("price", DataType::Float64, true),
    ]);
    assert_eq!(
        unknown_column("pirce", &schema).message(),
        "column \"pirce\" does not exist; did you mean \"price\"? columns: user, price"
    );
}

#[test]
fn the_message_of_an_expression_names_what_makes_a_text() {
    let schema = Schema::new(vec![Field::new("user", DataType::Utf8, true)]);
    assert_eq!(
        unknown_operand("guest", &schema).message(),
        "column \"guest\" does not exist; columns: user; if a text is meant, write lit(\"guest\")"
    );
}
