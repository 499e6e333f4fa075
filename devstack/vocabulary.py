"""What the invented people are called, where they live, whom they claim against.

Phone numbers come only from the ranges that Ofcom keeps free for drama.
"""

FIRST_NAMES = [
    "Amelia",
    "Olivia",
    "Isla",
    "Ava",
    "Grace",
    "Freya",
    "Florence",
    "Jack",
    "Harry",
    "George",
    "Oscar",
    "Leo",
    "Arthur",
    "Muhammad",
    "Thomas",
    "Siân",
    "Ffion",
    "Llŷr",
    "Gwenllïan",
    "Angharad",
    "Rhŷs",
    "Łukasz",
    "Małgorzata",
    "Zbigniew",
    "Agnieszka",
    "Paweł",
    "Zoë",
    "Chloë",
    "André",
    "Aoife",
    "Ciarán",
    "Caoimhe",
    "Seán",
    "Nguyễn",
    "Priya",
    "Arjun",
    "Fatima",
    "Yusuf",
    "Chidi",
    "Þóra",
    "Jean-Luc",
    "Anne-Marie",
    "François",
    "Jürgen",
    "Søren",
    "Eilidh",
    "Hamish",
    "Blessing",
    "Kwame",
    "Mei",
]
LAST_NAMES = [
    "Smith",
    "Jones",
    "Taylor",
    "Brown",
    "Williams",
    "Wilson",
    "Johnson",
    "Davies",
    "Patel",
    "Wright",
    "Walker",
    "Robinson",
    "O'Connor",
    "O'Neill",
    "D\u2019Souza",
    "D'Arcy",
    "Llewellyn",
    "Gruffydd",
    "Ap-Rhŷs",
    "Wójcik",
    "Kowalczyk",
    "Żółkiewski",
    "Szczęsny",
    "Nowak",
    "McDonald",
    "MacLeod",
    "Ó-Briain",
    "Nguyễn",
    "Khan",
    "Ahmed",
    "Hussain",
    "Okafor",
    "Adebayo",
    "Müller",
    "Núñez",
    "Smith-Jones",
    "Featherstonehaugh",
    "Cholmondeley",
    "Li",
    "Wu",
    "Þórsdóttir",
    "Åkesson",
    "Singh",
    "Kaur",
    "Begum",
]
# Lenders as they are stored: the same one in several cases and spellings.
LENDERS = (
    ("Black Horse", "BLACK HORSE", "black horse", "Blackhorse", "Black Horse Ltd", " Black Horse"),
    ("Close Brothers", "CLOSE BROTHERS", "Close Brothers Motor Finance", "close bros"),
    ("Santander Consumer", "SANTANDER", "Santander Consumer Finance", "santander"),
    ("MotoNovo Finance", "MOTONOVO", "Moto Novo", "MotoNovo"),
    ("Barclays Partner Finance", "BARCLAYS", "Barclays", "barclays partner finance"),
    ("Volkswagen Financial Services", "VWFS", "VW Finance", "Volkswagen Finance"),
    ("BMW Financial Services", "BMW FINANCE", "bmw financial services"),
    ("Oodle", "OODLE", "Oodle Car Finance"),
    ("Vauxhall Finance", "VAUXHALL FINANCE"),
    ("Nationwide", "NATIONWIDE", "Nationwide Building Society"),
)
TOWNS = (
    ("Leeds", "West Yorkshire", "LS"),
    ("Cardiff", "South Glamorgan", "CF"),
    ("Ynys Môn", "Gwynedd", "LL"),
    ("Bristol", "Avon", "BS"),
    ("Newcastle upon Tyne", "Tyne and Wear", "NE"),
    ("Glasgow", "Lanarkshire", "G"),
    ("London", "Greater London", "SW"),
    ("St. Helens", "Merseyside", "WA"),
)
STREETS = (
    "High Street", "Station Road", "Church Lane", "Stryd Fawr", "Mill Lane", "King's Road",
    "Queen Street", "The Crescent", "Victoria Road", "Green Lane",
)  # fmt: skip
VEHICLES = (
    ("Ford", "Fiesta"), ("Vauxhall", "Corsa"), ("Volkswagen", "Golf"), ("BMW", "320d"),
    ("Nissan", "Qashqai"), ("Škoda", "Octavia"), ("Citroën", "C3"), ("Mercedes-Benz", "A-Class"),
)  # fmt: skip
DEALERS = ("Lookers", "Arnold Clark", "Evans Halshaw", "Jones & Sons", "Cazoo", "Car Giant")
SOLICITORS = ("Hartley Wren LLP", "Penrose & Co", "Aubrey Stone Solicitors")
INTRODUCERS = ("mcc", "mcc", "mcc", "mcc", "clearclaim", "partner-portal", "tv-campaign")

# Area code and the leading digits of ten times a hundred numbers of each drama range.
MOBILE_RANGE = ("07700", "900")
LANDLINE_RANGES = (
    ("020", "79460"), ("0113", "4960"), ("0114", "4960"), ("0115", "4960"), ("0116", "4960"),
    ("0117", "4960"), ("0118", "4960"), ("0121", "4960"), ("0131", "4960"), ("0141", "4960"),
    ("0151", "4960"), ("0161", "4960"), ("0191", "4980"), ("028", "96496"), ("029", "20180"),
    ("01632", "960"), ("0808", "1570"), ("0306", "9990"),
)  # fmt: skip
NUMBERS_IN_RANGE = 1000
INVALID_PHONES = (
    "07700 9001",
    "n/a",
    "12345",
    "TBC",
    "0770090012345",
    "+44",
    "no phone",
    "07700900!",
)

# How one number gets written; the parts are area code without its zero, and the rest.
PHONE_FORMATS = (
    "0{area} {rest}", "+44{area}{rest}", "0044 {area} {rest}", "(0{area}) {rest}",
    "44{area}{rest}", "0{area}{rest}", "+44 (0){area} {rest}", "0{area}-{rest}", " 0{area} {rest} ",
)  # fmt: skip
