use super::beyond;

#[test]
fn decimals_are_compared_with_all_their_digits() {
    // 0.1 as a float is 0.1000000000000000055511151231257827…
    assert_eq!(beyond(1, 1, 0.1), -1);
    assert_eq!(beyond(-1, 1, -0.1), 1);
    assert_eq!(beyond(5, 1, 0.5), 0);
    assert_eq!(beyond(9_007_199_254_740_993, 0, 9_007_199_254_740_992.0), 1);
    assert_eq!(beyond(0, 6, 0.0), 0);
    assert_eq!(beyond(0, 6, -0.0), 0);
    // The float nearest to 10^38 is 2251190176543965970432 less.
    assert_eq!(beyond(10i128.pow(38) - 1, 0, 1e38), 1);
    // The nearest float is less than 10^-38.
    assert_eq!(beyond(1, 38, 1e-38), 1);
    // 10^22 is a float, 10^23 is not: the nearest one is 8388608 less.
    assert_eq!(beyond(1, -22, 1e22), 0);
    assert_eq!(beyond(1, -23, 1e23), 1);
    assert_eq!(beyond(10i128.pow(37), 37, 1.0), 0);
    assert_eq!(beyond(10i128.pow(37) + 1, 37, 1.0), 1);
}
