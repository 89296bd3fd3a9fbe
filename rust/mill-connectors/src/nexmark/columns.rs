//! The columns of each kind of event, and how their values follow from the numbers of the events.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, TimeUnit};

use super::numbers::{Draws, Prices};
use super::texts::{Channels, Pool, TextColumn};
use super::{NexmarkKind, NexmarkOptions};

/// How many events an epoch has: one person, then three auctions, then bids.
pub(super) const EPOCH_EVENTS: u64 = 50;
const AUCTIONS: u64 = 3;

/// The numbers that persons, auctions and categories begin with.
const PERSON_FIRST: u64 = 1000;
const AUCTION_FIRST: u64 = 1000;
const CATEGORY_FIRST: u64 = 10;
const CATEGORIES: u64 = 5;

/// One in so many is not of the hot one: bids on auctions, bids by bidders, auctions by sellers.
const HOT_AUCTION_RATIO: u64 = 2;
const HOT_BIDDER_RATIO: u64 = 4;
const HOT_SELLER_RATIO: u64 = 4;
/// Another auction or person becomes the hot one after so many.
const HOT_EVERY: u64 = 100;
/// How many auctions and persons are active, and how far beyond the last one a choice may be.
const AUCTIONS_IN_FLIGHT: u64 = 100;
const PERSONS_ACTIVE: u64 = 1000;
const LEAD: u64 = 10;

/// When the first event happens: 2015-07-15, in milliseconds.
const START_MS: i64 = 1_436_918_400_000;
/// One event in so many arrives late.
const LATE_RATIO: u64 = 10;

/// How long the filling texts are on average, in bytes, so that a person has about 200, an auction 500 and a bid 100.
const PERSON_EXTRA: u64 = 140;
const AUCTION_EXTRA: u64 = 392;
const BID_EXTRA: u64 = 68;

const FIRST_NAMES: [&str; 11] =
    ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const CITIES: [&str; 10] = [
    "Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne",
];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];

/// Consecutive events of one kind and one epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) epoch: u64,
    pub(super) first: u64,
    pub(super) events: u64,
}

impl Run {
    fn numbers(self) -> Range<u64> {
        self.first..self.first + self.events
    }
}

/// What a random value is for; another number is another value.
#[derive(Clone, Copy)]
enum Purpose {
    Delay = 16,
    Name,
    EmailName,
    EmailHost,
    CreditCard,
    Place,
    PersonExtra,
    ItemName,
    Description,
    InitialBid,
    Reserve,
    Expires,
    Seller,
    Category,
    AuctionExtra,
    Auction,
    Bidder,
    Price,
    Channel,
    BidExtra,
}

/// What values depend on besides the number of the event.
pub(super) struct Rules {
    seed: u64,
    interval_ms: f64,
    delay_ms_max: u64,
}

impl Rules {
    pub(super) fn new(options: &NexmarkOptions) -> Rules {
        Rules { seed: options.seed, interval_ms: 1000.0 / options.event_rate, delay_ms_max: options.delay_ms_max }
    }

    fn draws(&self, purpose: Purpose) -> Draws {
        Draws::new(self.seed, purpose as u64)
    }

    /// When event `n` happens, in milliseconds since the start.
    #[inline]
    fn due(&self, number: u64) -> i64 {
        // The product grows with the number, also where it is rounded.
        (number as f64 * self.interval_ms) as i64
    }

    /// The times of events as they arrive: a tenth of them late.
    #[inline]
    fn time(&self, draws: Draws, number: u64) -> i64 {
        let draw = draws.of(number);
        let is_late = self.delay_ms_max > 0 && draw.high(LATE_RATIO) == 0;
        let delay = if is_late { 1 + draw.low(self.delay_ms_max) as i64 } else { 0 };
        START_MS.saturating_add((self.due(number) - delay).max(0))
    }

    /// How long an auction is open, in milliseconds: twice as long as it takes at most until all active auctions are new ones.
    #[inline]
    fn length(&self, draws: Draws, number: u64) -> i64 {
        let horizon = self.due(number + AUCTIONS_IN_FLIGHT * EPOCH_EVENTS / AUCTIONS) - self.due(number);
        1 + draws.of(number).low((2 * horizon).clamp(1, i64::from(u32::MAX)) as u64) as i64
    }
}

/// A column by name, and how its values are made.
pub(super) struct Column {
    pub(super) name: &'static str,
    values: Values,
}

/// How values are made for runs of events.
enum Values {
    Integers(fn(&Rules, &[Run]) -> Vec<i64>),
    Times(fn(&Rules, &[Run]) -> Vec<i64>),
    Texts(fn(&Rules, &[Run]) -> TextColumn),
}

impl Column {
    pub(super) fn field(&self) -> Field {
        let data_type = match self.values {
            Values::Integers(_) => DataType::Int64,
            Values::Times(_) => DataType::Timestamp(TimeUnit::Millisecond, None),
            Values::Texts(_) => DataType::Utf8,
        };
        Field::new(self.name, data_type, false)
    }

    /// The values of the events of these runs.
    pub(super) fn make(&self, rules: &Rules, runs: &[Run]) -> ArrayRef {
        match self.values {
            Values::Integers(make) => Arc::new(Int64Array::from(make(rules, runs))),
            Values::Times(make) => Arc::new(TimestampMillisecondArray::from(make(rules, runs))),
            Values::Texts(make) => make(rules, runs).finish(),
        }
    }
}

const fn integers(name: &'static str, make: fn(&Rules, &[Run]) -> Vec<i64>) -> Column {
    Column { name, values: Values::Integers(make) }
}

const fn times(name: &'static str, make: fn(&Rules, &[Run]) -> Vec<i64>) -> Column {
    Column { name, values: Values::Times(make) }
}

const fn texts(name: &'static str, make: fn(&Rules, &[Run]) -> TextColumn) -> Column {
    Column { name, values: Values::Texts(make) }
}

static PERSON: [Column; 8] = [
    integers("id", person_id),
    texts("name", name),
    texts("email_address", email_address),
    texts("credit_card", credit_card),
    texts("city", |rules, runs| one_of(rules, runs, |place| CITIES[place.0])),
    texts("state", |rules, runs| one_of(rules, runs, |place| STATES[place.1])),
    times("date_time", date_time),
    texts("extra", |rules, runs| extra(rules, runs, Purpose::PersonExtra, PERSON_EXTRA)),
];

static AUCTION: [Column; 10] = [
    integers("id", auction_id),
    texts("item_name", |rules, runs| words(rules, runs, Purpose::ItemName, 20)),
    texts("description", |rules, runs| words(rules, runs, Purpose::Description, 100)),
    integers("initial_bid", |rules, runs| prices(rules, runs, Purpose::InitialBid)),
    integers("reserve", reserve),
    times("date_time", date_time),
    times("expires", expires),
    integers("seller", seller),
    integers("category", category),
    texts("extra", |rules, runs| extra(rules, runs, Purpose::AuctionExtra, AUCTION_EXTRA)),
];

static BID: [Column; 7] = [
    integers("auction", bid_auction),
    integers("bidder", bidder),
    integers("price", |rules, runs| prices(rules, runs, Purpose::Price)),
    texts("channel", |rules, runs| channels(rules, runs, |table| &table.names, 12)),
    texts("url", |rules, runs| channels(rules, runs, |table| &table.urls, 80)),
    times("date_time", date_time),
    texts("extra", |rules, runs| extra(rules, runs, Purpose::BidExtra, BID_EXTRA)),
];

/// The columns of events of a kind.
pub(super) fn of(kind: NexmarkKind) -> &'static [Column] {
    match kind {
        NexmarkKind::Persons => &PERSON,
        NexmarkKind::Auctions => &AUCTION,
        NexmarkKind::Bids => &BID,
    }
}

/// Which events of an epoch are of a kind.
pub(super) fn offsets(kind: NexmarkKind) -> Range<u64> {
    match kind {
        NexmarkKind::Persons => 0..1,
        NexmarkKind::Auctions => 1..1 + AUCTIONS,
        NexmarkKind::Bids => 1 + AUCTIONS..EPOCH_EVENTS,
    }
}

fn rows(runs: &[Run]) -> usize {
    runs.iter().map(|run| run.events as usize).sum()
}

/// Integers by a function of the number, which is made once an epoch.
fn by_epoch<F: Fn(u64) -> i64>(runs: &[Run], of_epoch: impl Fn(u64) -> F) -> Vec<i64> {
    let mut values = Vec::with_capacity(rows(runs));
    for run in runs {
        values.extend(run.numbers().map(of_epoch(run.epoch)));
    }
    values
}

/// Texts that a function writes for each number.
fn each(runs: &[Run], bytes: u64, write: impl Fn(&mut TextColumn, u64)) -> TextColumn {
    let mut column = TextColumn::new(rows(runs), bytes as usize);
    for number in runs.iter().flat_map(|run| run.numbers()) {
        write(&mut column, number);
        column.end();
    }
    column
}

/// The last auction there is in an epoch, from 0; all three of an epoch count.
fn last_auction(epoch: u64) -> u64 {
    epoch * AUCTIONS + AUCTIONS - 1
}

/// A person that is active in an epoch, from 0.
#[inline]
fn active_person(epoch: u64, choose: impl Fn(u64) -> u64) -> u64 {
    // There is one an epoch.
    let persons = epoch + 1;
    let active = persons.min(PERSONS_ACTIVE);
    persons - active + choose(active + LEAD)
}

// -- of all kinds ---------------------------------------------------------------------------------------------------------

fn date_time(rules: &Rules, runs: &[Run]) -> Vec<i64> {
    let draws = rules.draws(Purpose::Delay);
    by_epoch(runs, |_| move |number| rules.time(draws, number))
}

fn prices(rules: &Rules, runs: &[Run], purpose: Purpose) -> Vec<i64> {
    let (draws, table) = (rules.draws(purpose), Prices::table());
    by_epoch(runs, |_| move |number| table.of(draws.of(number)))
}

fn words(rules: &Rules, runs: &[Run], purpose: Purpose, bytes_max: u64) -> TextColumn {
    let (draws, pool) = (rules.draws(purpose), Pool::words());
    each(runs, bytes_max, |column, number| column.add(pool.text(draws.of(number), bytes_max)))
}

fn extra(rules: &Rules, runs: &[Run], purpose: Purpose, bytes: u64) -> TextColumn {
    let (draws, pool) = (rules.draws(purpose), Pool::letters());
    each(runs, bytes + bytes / 5, |column, number| column.add(pool.about(draws.of(number), bytes)))
}

// -- persons --------------------------------------------------------------------------------------------------------------

fn person_id(_rules: &Rules, runs: &[Run]) -> Vec<i64> {
    by_epoch(runs, |epoch| move |_| (PERSON_FIRST + epoch) as i64)
}

fn name(rules: &Rules, runs: &[Run]) -> TextColumn {
    let draws = rules.draws(Purpose::Name);
    each(runs, 14, |column, number| {
        let draw = draws.of(number);
        column.add(FIRST_NAMES[draw.high(FIRST_NAMES.len() as u64) as usize].as_bytes());
        column.add(b" ");
        column.add(LAST_NAMES[draw.low(LAST_NAMES.len() as u64) as usize].as_bytes());
    })
}

fn email_address(rules: &Rules, runs: &[Run]) -> TextColumn {
    let (names, hosts, pool) = (rules.draws(Purpose::EmailName), rules.draws(Purpose::EmailHost), Pool::letters());
    each(runs, 16, |column, number| {
        column.add(pool.text(names.of(number), 7));
        column.add(b"@");
        column.add(pool.text(hosts.of(number), 5));
        column.add(b".com");
    })
}

fn credit_card(rules: &Rules, runs: &[Run]) -> TextColumn {
    let draws = rules.draws(Purpose::CreditCard);
    each(runs, 19, |column, number| {
        for group in 0..4 {
            let digits = draws.of(number).quarter(group, 10_000);
            let digit = |power: u64| b'0' + (digits / power % 10) as u8;
            column.add(if group > 0 { &b" "[..] } else { &b""[..] });
            column.add(&[digit(1000), digit(100), digit(10), digit(1)]);
        }
    })
}

/// Where a person lives: places in the lists of cities and states.
fn one_of(rules: &Rules, runs: &[Run], choose: impl Fn((usize, usize)) -> &'static str) -> TextColumn {
    let draws = rules.draws(Purpose::Place);
    each(runs, 13, |column, number| {
        let draw = draws.of(number);
        let (city, state) = (draw.high(CITIES.len() as u64) as usize, draw.low(STATES.len() as u64) as usize);
        column.add(choose((city, state)).as_bytes());
    })
}

// -- auctions -------------------------------------------------------------------------------------------------------------

fn auction_id(_rules: &Rules, runs: &[Run]) -> Vec<i64> {
    let first_of = |epoch| epoch * EPOCH_EVENTS + offsets(NexmarkKind::Auctions).start;
    by_epoch(runs, |epoch| move |number| (AUCTION_FIRST + epoch * AUCTIONS + number - first_of(epoch)) as i64)
}

fn reserve(rules: &Rules, runs: &[Run]) -> Vec<i64> {
    let (initial, more, table) = (rules.draws(Purpose::InitialBid), rules.draws(Purpose::Reserve), Prices::table());
    by_epoch(runs, |_| move |number| table.of(initial.of(number)) + table.of(more.of(number)))
}

fn expires(rules: &Rules, runs: &[Run]) -> Vec<i64> {
    let (delays, lengths) = (rules.draws(Purpose::Delay), rules.draws(Purpose::Expires));
    by_epoch(runs, |_| move |number| rules.time(delays, number).saturating_add(rules.length(lengths, number)))
}

fn seller(rules: &Rules, runs: &[Run]) -> Vec<i64> {
    let draws = rules.draws(Purpose::Seller);
    by_epoch(runs, |epoch| {
        let hot = epoch / HOT_EVERY * HOT_EVERY;
        move |number| {
            let draw = draws.of(number);
            let seller = if draw.high(HOT_SELLER_RATIO) > 0 { hot } else { active_person(epoch, |n| draw.low(n)) };
            (PERSON_FIRST + seller) as i64
        }
    })
}

fn category(rules: &Rules, runs: &[Run]) -> Vec<i64> {
    let draws = rules.draws(Purpose::Category);
    by_epoch(runs, |_| move |number| (CATEGORY_FIRST + draws.of(number).high(CATEGORIES)) as i64)
}

// -- bids -----------------------------------------------------------------------------------------------------------------

fn bid_auction(rules: &Rules, runs: &[Run]) -> Vec<i64> {
    let draws = rules.draws(Purpose::Auction);
    by_epoch(runs, |epoch| {
        let last = last_auction(epoch);
        let (hot, first) = (last / HOT_EVERY * HOT_EVERY, last.saturating_sub(AUCTIONS_IN_FLIGHT));
        let choices = last - first + 1 + LEAD;
        move |number| {
            let draw = draws.of(number);
            let auction = if draw.high(HOT_AUCTION_RATIO) > 0 { hot } else { first + draw.low(choices) };
            (AUCTION_FIRST + auction) as i64
        }
    })
}

fn bidder(rules: &Rules, runs: &[Run]) -> Vec<i64> {
    let draws = rules.draws(Purpose::Bidder);
    by_epoch(runs, |epoch| {
        // The second of the hundred, so that hot bidders are no hot sellers.
        let hot = epoch / HOT_EVERY * HOT_EVERY + 1;
        move |number| {
            let draw = draws.of(number);
            let bidder = if draw.high(HOT_BIDDER_RATIO) > 0 { hot } else { active_person(epoch, |n| draw.low(n)) };
            (PERSON_FIRST + bidder) as i64
        }
    })
}

fn channels(rules: &Rules, runs: &[Run], of: fn(&Channels) -> &[String], bytes: u64) -> TextColumn {
    let (draws, table) = (rules.draws(Purpose::Channel), of(Channels::table()));
    each(runs, bytes, |column, number| column.add(table[Channels::place(draws.of(number))].as_bytes()))
}
