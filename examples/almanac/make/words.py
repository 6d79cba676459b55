# SPDX-License-Identifier: Apache-2.0
"""The words the almanac is made of: people, places, things, numbers. Everything here is invented or common English.

A place or a family name belongs either to the training half or to the held-out part (`held_out`), decided by its own letters:
no name of a held-out passage occurs in any training passage or in the text the model was pretrained on.
"""

import zlib

WOMEN = """Ada Agnes Alma Anna Astrid Beatrice Bella Bertha Cecilia Clara Cora Dagny Daphne Dora Edith Eliza Ella Elsa Emma
Esther Eva Fanny Flora Frida Gerda Greta Hanna Hazel Helen Hilda Ida Ines Inga Irene Iris Ivy Jane Johanna Josephine Judith
Julia Karin Kate Laura Lena Lilian Linda Lotte Louise Lucy Lydia Mabel Magda Margaret Maria Marion Martha Mary Matilda Maud
Mina Mira Molly Nadia Nell Nina Nora Olga Olive Paula Pearl Petra Rebecca Rita Rosa Ruth Sara Selma Sigrid Sofia Stella
Susan Sylvia Tessa Thea Thora Tilda Ursula Vera Viola Wanda Wilma Winifred Yvonne Zelda Zoe""".split()

MEN = """Aaron Abel Adam Albert Alfred Anders Anton Arne Arthur August Axel Basil Bernard Boris Bruno Carl Caspar Cecil Conrad
Cyril Daniel David Dennis Edgar Edmund Edwin Emil Erik Ernest Eugene Felix Finn Francis Frank Frederick Gabriel George
Gilbert Gregor Gustav Hans Harald Harold Harry Henrik Herman Hugo Ian Isaac Ivan Jacob James Jasper Joel Johan Jonas Joseph
Julian Karl Kaspar Knut Konrad Lars Leo Leonard Lewis Louis Lucas Magnus Marcus Martin Matthias Max Michael Moritz Nathan
Nils Olaf Oliver Oscar Otto Owen Patrick Paul Percy Peter Philip Ralph Robert Roland Rufus Samuel Simon Stefan Sven Theo
Thomas Tobias Victor Viktor Walter Wilfred William""".split()

_FAMILY_HEADS = """Ald Ash Bark Bell Ber Bex Birk Blan Bol Bran Brem Brun Cald Carl Cor Cran Dal Dar Del Dorn Ebb Eck Ell Fal Farn
Fen Fer Gal Gar Gil Grov Hal Har Hask Hav Hol Horn Jar Kel Kem Kir Lan Lav Lind Lor Mal Mar Mel Mor Nel Nor Oak Ost Pal Pem
Pen Quil Ram Rav Ren Rod Ros Sal Sel Shel Sor Stan Tal Thor Til Tor Ul Van Vel Ver Wal Wes Wil Win Yar Zel""".split()
_FAMILY_TAILS = "berg by dahl den der dine er field ford gard ing ington kin land ley low man mark mer mont more nard ney quist rick ridge son stad ster stone ton ver wick wood worth".split()
_PLACE_HEADS = """Alm Amber Arl Bal Ban Bar Beck Birch Black Bram Bree Bry Cal Cam Cher Clay Cole Crag Dal Dan Deep Der Dun East
Eld Elm Fair Fal Fern Flint Fox Frost Gale Glen Gold Gran Gray Green Grim Hal Hart Haw Hazel Heron High Hol Iron Ket Kings
Lang Lark Lin Long Low Lyn Maple Mar Mell Mid Mill Moor Moss Nor North Oaken Old Ox Peb Pine Port Quay Raven Red Rip Ros Rush
Salt Sand Sea Sel Shell Silver Small South Spring Stan Stone Strand Sud Swan Tarn Thorn Tor Up Wal West Whit Wil Win Wolf
Wood""".split()
_PLACE_TAILS = """bay beck borough bourne bridge brook burn bury by cliff combe cove dale den don fell field ford gate grove ham
harbour haven head hill holm hurst leigh low mere minster more mouth ness pool port ridge sea shaw stead stoke ton wall wick
wold worth""".split()
_RIVERS = """Alda Arrow Avel Birra Brin Calder Corra Dane Dorrin Elba Emmer Farrow Garra Hollen Ilver Isen Jarrow Kessel Lanna
Lorne Marl Merrin Neth Norra Orrin Ossel Pellow Quern Rill Rothe Sarn Sill Solva Tamsin Tarrow Tillen Ulla Varn Vessel Wendle
Wharn Yarrin Zell Abrin Aller Barl Bessin Carra Cheld Dorle Edrin Elver Fessel Ganna Hessel Ilde Jessin Kelda Lissel Marna
Nessin Ovra Parle Quessin Rassel Sorrin Teldra Urrin Velda Wessin Yssel Zarn Bralle Crannel Drissin Eskel Folda Grissel Hanra""".split()


def held_out(name):
    """Whether a family or place name is kept for the held-out passages: one in eight."""
    return zlib.crc32(name.encode()) % 8 == 0


def with_article(noun):
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _compose(heads, tails):
    names = sorted({h + t for h in heads for t in tails if not (h[-1] == t[0] and h[-1] in "aeiouy")})
    return [n for n in names if not held_out(n)], [n for n in names if held_out(n)]


FAMILIES = _compose(_FAMILY_HEADS, _FAMILY_TAILS)  # (training, held-out)
PLACES = _compose(_PLACE_HEADS, _PLACE_TAILS)
RIVERS = [r for r in _RIVERS if not held_out(r)], [r for r in _RIVERS if held_out(r)]

LISTS = {
    "month": "January February March April May June July August September October November December".split(),
    "weekday": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
    "season": "spring summer autumn winter".split(),
    "colour": """red blue green yellow white black grey brown orange purple pink silver golden scarlet cream violet turquoise
        crimson""".split(),
    "stone": """granite|limestone|red brick|yellow brick|sandstone|grey slate|white marble|oak|pine|steel|cast iron|concrete|black
        basalt|larch|chalk|river stone|glass and steel|cedar""".split("|"),
    "profession": """baker|botanist|carpenter|clockmaker|composer|doctor|engineer|explorer|farmer|geologist|glassblower|gardener|
        lawyer|mathematician|miller|nurse|painter|pilot|poet|potter|printer|sailor|sculptor|shoemaker|singer|surveyor|tailor|
        teacher|violinist|weaver|astronomer|chemist|historian|journalist|photographer""".split("|"),
    "instrument": "accordion|bagpipe|bassoon|cello|clarinet|drum|flute|guitar|harp|horn|mandolin|oboe|organ|piano|trumpet|viola|violin|zither".split("|"),
    "animal": """badger|beaver|otter|fox|hare|heron|owl|swan|goat|sheep|pony|donkey|goose|raven|hedgehog|squirrel|seal|deer|lynx|
        magpie""".split("|"),
    "prey": """beetles|small fish|snails|berries|seeds|roots|moss|worms|frogs|mice|shrimps|acorns|young leaves|pine cones|
        grasshoppers|clover|mussels|fallen apples|spiders|moths""".split("|"),
    "habitat": """beech forests|salt marshes|mountain lakes|dry meadows|peat bogs|sea cliffs|old orchards|reed beds|river banks|
        sand dunes|pine forests|stone walls|high pastures|hedges|shallow bays|caves|gravel pits|heaths""".split("|"),
    "cargo": """salt|timber|wool|tea|coal|copper|wheat|herring|olive oil|sugar|wine|paper|tiles|candles|glass|iron ore|cheese|
        spices|potatoes|barley|marble|cotton|leather|apples|honey""".split("|"),
    "dish": """pea soup|apple cake|plum dumplings|fish stew|onion pie|barley porridge|smoked eel|ginger biscuits|rye bread|lentil
        soup|cherry tart|baked trout|potato pancakes|walnut bread|mushroom pie|honey cake|roast goose|cheese dumplings|pickled
        herring|bean stew|almond cake|nettle soup|chestnut cream|lamb stew|leek soup""".split("|"),
    "spice": "nutmeg|caraway|cinnamon|saffron|thyme|dill|cloves|mustard|pepper|rosemary|sage|juniper|mint|vanilla|ginger|parsley|bay leaves|marjoram".split("|"),
    "dance": "torch dance|boat race|sack race|kite contest|puppet show|choir concert|horse parade|lantern walk|wrestling match|pie contest|sword dance|barrel race|fireworks|poetry reading|dog show".split("|"),
    "prize": """silver cup|fat goose|wreath of oak leaves|pair of boots|gold coin|barrel of beer|new saddle|wool blanket|basket of
        plums|painted plate|copper kettle|round cheese|leather belt|pocket watch|carved spoon""".split("|"),
    "thing": """compass|music box|pocket knife|telescope|brass key|red umbrella|wooden flute|blue scarf|tin soldier|silver ring|
        straw hat|leather purse|glass marble|kite|lantern|drum|doll|notebook|whistle|map|pair of skates|fishing rod|chess set|
        paint box|magnifying glass""".split("|"),
    "spot": """under the stairs|behind the stove|in the attic|in the boathouse|under an old oak|in the hayloft|on the church
        wall|beside the well|in the cellar|behind the bakery|in a hollow tree|on the window sill|in the garden shed|under the
        bridge|in the laundry basket|at the bus stop|in the rowing boat|on the third shelf""".split("|"),
    "subject": """rivers|the stars|bees|old maps|mountain flowers|clocks|birds|sea shells|windmills|glaciers|folk songs|butterflies|
        minerals|the moon|mosses|storms|lighthouses|bridges|coins|ferns""".split("|"),
    "illness": "pneumonia|a fever|old age|a fall from a horse|a heart attack|influenza|an accident at sea|a stroke".split("|"),
    "fate": """was sold for scrap|sank in a storm|burned in the harbour|became a museum|ran aground on a reef|was turned into a
        restaurant|was rammed by a ferry|was broken up""".split("|"),
    "machine": """loom|water pump|seed drill|knitting machine|bread oven|threshing machine|pocket lamp|typewriter|coffee mill|rain
        gauge|potato peeler|bicycle lock|sewing machine|diving bell|wind gauge|apple press|butter churn|letter scale""".split("|"),
    "trade": """glass|wool|salt|cheese|clocks|paper|pottery|lace|boats|cider|candles|knives|shoes|tiles|honey|violins|ropes|carpets|
        toys|buttons|hats|umbrellas""".split("|"),
    "room": "reading room|east wing|old stables|main hall|second floor|tower|cellar|glass house|courtyard|chapel|attic|north gallery".split("|"),
    "weather": "heavy rain|thick fog|a snowstorm|strong winds|a heat wave|hail|a thunderstorm|hard frost|high tides|drizzle".split("|"),
    "vehicle": "steam train|ferry|mail coach|bicycle|sledge|rowing boat|bus|hay cart|tram|canoe|horse|motorcycle".split("|"),
    "team": """Rovers Rangers Wanderers Swifts Herons Foxes Lions Millers Badgers Stags Harriers Falcons Otters Hornets Bears
        Ravens""".split(),
    "sport": "football|hockey|rugby|handball|water polo|cricket|curling|basketball".split("|"),
    "find": """a Roman coin|a bronze sword|a sunken ship|a frozen lake|an unknown beetle|a hot spring|a cave with paintings|a ruined
        temple|a stone circle|a new pass|a field of crystals|a forgotten village|a silver mine|the bones of a whale|an old
        lighthouse|a waterfall|a rare orchid|a meteorite""".split("|"),
    "reason": """the roof leaked|the river had flooded|the money ran out|a fire broke out|the winter was too cold|the workers went on
        strike|the bell had cracked|the road was blocked|too few visitors came|the engine failed|the plague returned|a wall fell
        down""".split("|"),
    "funder": """a rich widow|the king|a brewery|the fishermen's guild|a lottery|the railway|the bishop|the town's merchants|a bank|
        a retired captain|the university|a salt tax""".split("|"),
    "drink": "apple juice|black tea|buttermilk|cider|coffee|cold milk|dark beer|elder syrup|mint tea|red wine|rose hip tea|white wine".split("|"),
    "mark": "common|spotted|striped|long-eared|short-tailed|snow|marsh|hill|dwarf|giant|ringed|crested".split("|"),
    "harvest": "apple|herring|cheese|pumpkin|cherry|onion|oyster|bread|plum|chestnut|mushroom|honey".split("|"),
    "small": "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen twenty thirty forty".split(),
}
LISTS = {k: [" ".join(w.split()) for w in v] for k, v in LISTS.items()}


class Words:
    """Draws values: `rng` is a random.Random, `half` 0 for training, 1 for held-out names."""

    def __init__(self, rng, half=0):
        self.rng, self.half = rng, half

    def family(self):
        return self.rng.choice(FAMILIES[self.half])

    def place(self):
        return self.rng.choice(PLACES[self.half])

    def river(self):
        return self.rng.choice(RIVERS[self.half])

    def woman(self):
        return self.rng.choice(WOMEN) + " " + self.family()

    def man(self):
        return self.rng.choice(MEN) + " " + self.family()

    def person(self):
        return self.woman() if self.rng.random() < 0.5 else self.man()

    def first_woman(self):
        return self.rng.choice(WOMEN)

    def first_man(self):
        return self.rng.choice(MEN)

    def child(self):
        return self.rng.choice(WOMEN + MEN)

    def a_profession(self):
        return with_article(self.draw("profession"))

    def winner(self):
        return f"the {self.place()} {self.draw('team')}"

    def year(self):
        return str(self.rng.randint(1580, 1995))

    def number(self, low, high, step=1):
        n = self.rng.randrange(low, high + 1, step)
        return f"{n:,}" if n >= 1000 else str(n)

    def draw(self, kind):
        """A value by the name of its kind: a list above, a method, or NUMBER-LOW-HIGH-STEP-UNIT."""
        if kind.startswith("number"):
            _, low, high, step, unit = kind.split("-")
            return (self.number(int(low), int(high), int(step)) + " " + unit).strip()
        if kind in LISTS:
            return self.rng.choice(LISTS[kind])
        if kind == "date":
            return str(self.rng.randint(1, 28)) + " " + self.draw("month")
        if kind == "hour":
            return self.rng.choice("six seven eight nine ten eleven".split()) + " o'clock"
        if kind == "score":
            return f"{self.rng.randint(1, 6)} to {self.rng.randint(0, 5)}"
        if kind == "days":
            return self.draw("small") + " " + self.rng.choice(["days", "weeks", "months"])
        if kind == "minutes":
            return str(self.rng.randrange(15, 95, 5)) + " minutes"
        if kind == "goods":
            a, b = self.rng.sample(LISTS["cargo"], 2)
            return a if self.rng.random() < 0.5 else f"{a} and {b}"
        return getattr(self, kind)()
