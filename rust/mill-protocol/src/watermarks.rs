//! How far each input of an operator has come.

use crate::operator::Watermark;

/// The watermarks of several inputs, and the usual way to make one of them: the least of those that have not ended.
///
/// # Examples
/// ```
/// use mill_protocol::{Watermark, Watermarks};
/// let mut times = Watermarks::new(2);
/// assert_eq!(times.advance(0, Watermark(10)), None, "the other input holds it back");
/// assert_eq!(times.advance(1, Watermark(4)), Some(Watermark(4)));
/// assert_eq!(times.advance(1, Watermark::MAX), Some(Watermark(10)), "an input that has ended holds nothing back");
/// assert_eq!(times.least(), Watermark(10));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// That of an input that has ended is [`Watermark::MAX`].
    inputs: Vec<Watermark>,
    least: Watermark,
}

impl Watermarks {
    /// That many inputs, before any record. Without an input all have ended.
    pub fn new(inputs: usize) -> Watermarks {
        let least = if inputs == 0 { Watermark::MAX } else { Watermark::MIN };
        Watermarks { inputs: vec![Watermark::MIN; inputs], least }
    }

    /// This input has come so far; returns the least of all inputs if it has risen.
    ///
    /// # Panics
    /// If there is no such input.
    pub fn advance(&mut self, input: usize, at: Watermark) -> Option<Watermark> {
        let own = &mut self.inputs[input];
        *own = at.max(*own);
        let least = self.inputs.iter().copied().min().unwrap_or(Watermark::MAX);
        (least > self.least).then(|| {
            self.least = least;
            least
        })
    }

    /// How far this input has come.
    ///
    /// # Panics
    /// If there is no such input.
    pub fn of(&self, input: usize) -> Watermark {
        self.inputs[input]
    }

    /// How far all inputs have come that have not ended; [`Watermark::MAX`] once all have.
    pub fn least(&self) -> Watermark {
        self.least
    }
}
